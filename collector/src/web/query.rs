//! What a query may say, and pages of answers.
//!
//! A page is continued by a cursor, the id of its last item: it survives a new snapshot, and
//! when that item is gone the client is told so instead of being shown a gap.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Items of one page, unless fewer are asked for: a nation's agencies in a dozen pages.
pub(super) const LIMIT_MAX: usize = 1000;
/// Items of one page when the query does not say.
pub(super) const LIMIT_DEFAULT: usize = 100;
/// Bytes of a query: every parameter at its longest fits.
const QUERY_BYTES_MAX: usize = 1024;

/// A query's parameters; an unknown, repeated or malformed one is a problem, not ignored.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.len() > QUERY_BYTES_MAX) {
            return Err(Problem::bad_query("the query is longer than 1024 bytes"));
        }
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(params)| Self(params))
            .map_err(|rejection: QueryRejection| Problem::bad_query(rejection.body_text()))
    }
}

/// The id in a path, as text.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        read.map(|Path(id)| Self(id))
            .map_err(|rejection: PathRejection| Problem::bad_query(rejection.body_text()))
    }
}

/// Checks how many items a page may have.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::bad_query(format!("limit is a number from 1 to {LIMIT_MAX}"))),
    }
}

/// One page of a list made from a snapshot.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    /// When the snapshot was taken.
    pub(super) taken_at: String,
    /// Which roster it was folded against.
    pub(super) roster_version: String,
    /// Items on all pages.
    pub(super) total: usize,
    /// The items of this one.
    pub(super) items: Vec<T>,
    /// Asks for the next one; absent from the last.
    pub(super) next_cursor: Option<String>,
}

/// Where a page lies in the matching items, and what continues it.
pub(super) struct Cut<'a, T> {
    pub(super) items: &'a [T],
    pub(super) continues_after: Option<&'a T>,
}

/// Cuts a page: `limit` items that begin after the `after`th.
pub(super) fn cut<T>(matching: &[T], begin: usize, limit: usize) -> Cut<'_, T> {
    let begin = begin.min(matching.len());
    let end = begin.saturating_add(limit).min(matching.len());
    let items = &matching[begin..end];
    let continues_after = items.last().filter(|_| end < matching.len());
    Cut { items, continues_after }
}

/// A cursor whose item is gone.
pub(super) fn stale_cursor() -> Problem {
    Problem::bad_query("the cursor is not of this list any more; begin again without it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let all: Vec<usize> = (0..23).collect();
        for size in [1, 5, 22, 23, 24] {
            let (mut seen, mut begin) = (Vec::new(), 0);
            loop {
                let page = cut(&all, begin, size);
                seen.extend_from_slice(page.items);
                match page.continues_after {
                    Some(last) => begin = last + 1,
                    None => break,
                }
            }
            assert_eq!(seen, all, "pages of {size}");
        }
        assert!(cut(&all, 99, 5).items.is_empty());
    }

    #[test]
    fn a_page_is_never_empty_by_wish_nor_endless() {
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err());
        assert_eq!((limit(None), limit(Some(1000))), (Ok(100), Ok(1000)));
    }
}
