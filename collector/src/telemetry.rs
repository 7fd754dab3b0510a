//! Logs: structured, to standard error, which the service manager keeps. `HAIDANG_LOG` chooses
//! what is shown (`info` by default; `haidang_collector=debug,warn` names a part and the rest);
//! `HAIDANG_LOG_FORMAT=json` makes each line one JSON object.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. Called once, by main.
pub fn start() {
    let wanted = std::env::var("HAIDANG_LOG").unwrap_or_else(|_| "info".to_owned());
    let read = wanted.parse::<Targets>();
    let is_bad = read.is_err();
    let filter = read.unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let is_json = std::env::var_os("HAIDANG_LOG_FORMAT").is_some_and(|format| format == "json");
    let lines = if is_json {
        lines.json().boxed()
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        lines.with_ansi(terminal).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if is_bad {
        tracing::warn!(wanted, "HAIDANG_LOG is no filter, such as info or debug: info is shown");
    }
}
