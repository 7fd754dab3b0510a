//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks. Short against every measured figure, long against the cost of a look.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Looks until the condition holds, and returns what it gave and how long it took. `look` says
/// what it sees instead, for the message of a failure.
///
/// # Errors
/// When the deadline passes first: what was awaited and what was seen last.
pub async fn until<T, Looking>(
    awaited: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Looking,
) -> Result<(T, Duration)>
where
    Looking: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(value) => return Ok((value, started.elapsed())),
            Err(seen) if started.elapsed() > deadline => {
                bail!("{awaited} did not come within {deadline:?}; seen last: {seen}")
            }
            Err(_) => tokio::time::sleep(LOOK_PERIOD).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_holds_is_returned_and_what_never_holds_is_named() {
        let mut looks = 0;
        let (value, _) = until("two looks", Duration::from_secs(5), || {
            looks += 1;
            std::future::ready(if looks == 2 { Ok(7) } else { Err("one".to_owned()) })
        })
        .await
        .expect("the second look holds");
        assert_eq!(value, 7);
        let never = || std::future::ready(Err::<(), _>("nothing".to_owned()));
        let error = until("it", Duration::ZERO, never).await.expect_err("it never holds");
        assert!(error.to_string().ends_with("seen last: nothing"), "{error}");
    }
}
