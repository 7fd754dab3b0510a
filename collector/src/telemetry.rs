//! Logs: structured, to standard error, which the service manager keeps. `RUST_LOG` chooses what
//! is shown (default `info`); `HAIDANG_LOG=json` makes each line one JSON object.

use tracing_subscriber::EnvFilter;

/// Starts logging. Called once, by main.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var_os("HAIDANG_LOG").is_some_and(|format| format == "json") {
        lines.json().init();
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        lines.with_ansi(terminal).init();
    }
}
