//! The status page: one look says how much of the roster is connected, and who is not.
//!
//! Rendered here, from one snapshot, without scripts: it works in any browser, prints, and can be
//! read aloud. Vietnamese first, English second. Agencies that were never enrolled are counted but
//! not listed: at the beginning of a roll-out they would bury the outages.

mod words;

use std::fmt::{self, Display, Write as _};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::{Web, rfc3339};
use crate::snapshot::{AgencyState, AgencyView, Incident, IncidentKind, Snapshot};

use words::{DEFINITION, LOCAL_OFFSET, Words};

/// Agencies in the list. More are a general outage, for which the API is the better list.
const ROWS_MAX: usize = 300;
/// Width of the bar in its own units: a thousandth of the roster is still drawn.
const BAR_WIDTH: u32 = 1000;

pub(super) async fn index(State(web): State<Web>) -> Html<String> {
    Html(render(&web.current()))
}

pub(super) async fn style() -> Response {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "max-age=300")];
    (headers, include_str!("page/style.css")).into_response()
}

/// The whole page.
fn render(snapshot: &Snapshot) -> String {
    let mut page = String::with_capacity(32 << 10);
    write_page(&mut page, snapshot).expect("writing to a String cannot fail");
    page
}

fn write_page(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    page.push_str(concat!(
        "<!doctype html>\n<html lang=\"vi\"><head><meta charset=\"utf-8\">",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        "<title>Hải Đăng – kết nối mạng truyền số liệu chuyên dùng</title>",
        "<link rel=\"stylesheet\" href=\"/style.css\"></head>\n<body><header><div class=\"wide\">",
        "<p class=\"brand\">Hải Đăng</p>",
        "<h1>Kết nối mạng truyền số liệu chuyên dùng",
        " <span lang=\"en\">Connection to the dedicated network</span></h1>",
        "</div></header>\n<main class=\"wide\">\n",
    ));
    let counts = Counts::of(snapshot);
    headline(page, snapshot, &counts)?;
    incidents(page, snapshot)?;
    states(page, &counts)?;
    not_connected(page, snapshot)?;
    page.push_str("</main>\n<footer class=\"wide\"><p>");
    page.push_str(concat!(
        "<a href=\"/api/v1/agencies\">API</a> · <a href=\"/api/v1/openapi.json\">OpenAPI</a> · ",
        "<a href=\"/metrics\">Prometheus</a></p></footer></body></html>\n",
    ));
    Ok(())
}

/// Agencies by state, in the order of [`AgencyState::LABELS`].
struct Counts {
    by_state: [usize; AgencyState::LABELS.len()],
    roster: usize,
}

impl Counts {
    fn of(snapshot: &Snapshot) -> Self {
        let mut by_state = [0; AgencyState::LABELS.len()];
        for view in &snapshot.agencies {
            by_state[view.state.index()] += 1;
        }
        Self { by_state, roster: snapshot.agencies.len() }
    }

    fn connected(&self) -> usize {
        self.by_state[AgencyState::Connected.index()] + self.by_state[AgencyState::Degraded.index()]
    }

    /// Thousandths, rounded down: 630 of 631 must not read as 100 %.
    fn permille(&self, part: usize) -> usize {
        part.saturating_mul(1000).checked_div(self.roster).unwrap_or(0)
    }
}

fn headline(page: &mut String, snapshot: &Snapshot, counts: &Counts) -> fmt::Result {
    let permille = counts.permille(counts.connected());
    write!(
        page,
        "<section class=\"headline\" aria-labelledby=\"share\"><h2 id=\"share\">Tỷ lệ kết nối \
         <span lang=\"en\">Share connected</span></h2>\
         <p class=\"figure\"><strong>{},{} %</strong> <span>{} / {} cơ quan \
         <span lang=\"en\">agencies</span></span></p>",
        permille / 10,
        permille % 10,
        counts.connected(),
        counts.roster,
    )?;
    bar(page, counts)?;
    write!(
        page,
        "<p class=\"fine\">{} <span lang=\"en\">{}</span></p>\
         <p class=\"fine\">Danh sách <span lang=\"en\">Roster</span> <code>{}</code> · \
         Cập nhật lúc <span lang=\"en\">Updated at</span> {}</p></section>",
        DEFINITION.vi,
        DEFINITION.en,
        Escaped(snapshot.roster.version()),
        Time(snapshot.taken_at),
    )
}

/// A stacked bar. It only repeats the table below, so it is hidden from screen readers.
fn bar(page: &mut String, counts: &Counts) -> fmt::Result {
    write!(
        page,
        "<svg class=\"bar\" viewBox=\"0 0 {BAR_WIDTH} 24\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\">",
    )?;
    let mut before = 0;
    for (label, count) in AgencyState::LABELS.iter().zip(counts.by_state) {
        let (left, right) = (counts.permille(before), counts.permille(before + count));
        before += count;
        if count > 0 {
            let width = right - left;
            write!(page, "<rect class=\"{label}\" x=\"{left}\" width=\"{width}\" height=\"24\"/>")?;
        }
    }
    page.push_str("</svg>");
    Ok(())
}

fn incidents(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    for incident in &snapshot.incidents {
        let Incident { kind, scope, since, agencies } = incident;
        let words = words::incident(*kind);
        page.push_str("<section class=\"incident\" role=\"status\"><p><strong>");
        match kind {
            IncidentKind::Parent => write!(page, "{}: ", Escaped(&name_of(snapshot, scope)))?,
            IncidentKind::CollectorSuspected => {}
        }
        writeln!(
            page,
            "{}</strong> <span lang=\"en\">{}</span></p><p class=\"fine\">{} cơ quan \
             <span lang=\"en\">agencies</span> · Từ <span lang=\"en\">since</span> {}</p></section>",
            words.vi,
            words.en,
            agencies.len(),
            Time(*since),
        )?;
    }
    Ok(())
}

fn states(page: &mut String, counts: &Counts) -> fmt::Result {
    page.push_str(concat!(
        "<section aria-labelledby=\"states\"><h2 id=\"states\">Trạng thái ",
        "<span lang=\"en\">States</span></h2><table class=\"states\"><thead><tr>",
        "<th scope=\"col\">Trạng thái <span lang=\"en\">State</span></th>",
        "<th scope=\"col\" class=\"number\">Số cơ quan <span lang=\"en\">Agencies</span></th>",
        "<th scope=\"col\" class=\"number\">Tỷ lệ <span lang=\"en\">Share</span></th>",
        "</tr></thead><tbody>",
    ));
    for (label, count) in AgencyState::LABELS.into_iter().zip(counts.by_state) {
        let permille = counts.permille(count);
        write!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{count}</td>\
             <td class=\"number\">{},{} %</td></tr>",
            Badge(label),
            permille / 10,
            permille % 10,
        )?;
    }
    writeln!(
        page,
        "</tbody><tfoot><tr><th scope=\"row\">Tổng <span lang=\"en\">Total</span></th>\
         <td class=\"number\">{}</td><td></td></tr></tfoot></table></section>",
        counts.roster,
    )
}

fn not_connected(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let mut listed: Vec<&AgencyView> = snapshot
        .agencies
        .iter()
        .filter(|view| !view.state.counts_as_connected() && view.state != AgencyState::NotEnrolled)
        .collect();
    // The newest of each state first; the sort is stable, so ties stay in roster order.
    listed.sort_by_key(|view| (view.state.index(), std::cmp::Reverse(view.since)));
    page.push_str(concat!(
        "<section aria-labelledby=\"list\"><h2 id=\"list\">Cơ quan chưa kết nối ",
        "<span lang=\"en\">Agencies not connected</span></h2>",
    ));
    if listed.is_empty() {
        page.push_str(concat!(
            "<p>Không có cơ quan nào mất kết nối. ",
            "<span lang=\"en\">No enrolled agency is out.</span></p></section>\n",
        ));
        return Ok(());
    }
    page.push_str(concat!(
        "<table class=\"list\"><thead><tr>",
        "<th scope=\"col\">Cơ quan <span lang=\"en\">Agency</span></th>",
        "<th scope=\"col\">Trạng thái <span lang=\"en\">State</span></th>",
        "<th scope=\"col\">Từ lúc <span lang=\"en\">Since</span></th>",
        "</tr></thead><tbody>",
    ));
    for view in listed.iter().take(ROWS_MAX) {
        row(page, snapshot, view)?;
    }
    page.push_str("</tbody></table>");
    if let Some(more) = listed.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        write!(
            page,
            "<p>và {more} cơ quan khác, xem <a href=\"/api/v1/agencies\">API</a> \
             <span lang=\"en\">and {more} more, see the API</span></p>",
        )?;
    }
    page.push_str("</section>\n");
    Ok(())
}

fn row(page: &mut String, snapshot: &Snapshot, view: &AgencyView) -> fmt::Result {
    let agency = &snapshot.roster.agencies()[view.row];
    write!(
        page,
        "<tr><th scope=\"row\"><a href=\"/api/v1/agencies/{}\">{}</a>",
        Escaped(agency.id.as_str()),
        Escaped(&agency.full_name()),
    )?;
    // The city itself is no row, and says nothing that the page's title does not.
    if let Some(parent) = snapshot.roster.row(&agency.parent) {
        let parent = snapshot.roster.agencies()[parent].full_name();
        write!(page, " <small>{}</small>", Escaped(&parent))?;
    }
    write!(page, "</th><td>{}", Badge(view.state.as_str()))?;
    if let Some(words) = words::detail(view.state) {
        write!(page, "<small>{} · <span lang=\"en\">{}</span></small>", words.vi, words.en)?;
    }
    write!(page, "</td><td>{}</td></tr>", Time(view.since))
}

/// The official name behind an id; the id itself where no row has it (the city, a circuit).
fn name_of(snapshot: &Snapshot, id: &str) -> String {
    let row = id.parse().ok().and_then(|id| snapshot.roster.row(&id));
    row.map_or_else(|| id.to_owned(), |row| snapshot.roster.agencies()[row].full_name())
}

/// A state in both languages, with its colour.
struct Badge(&'static str);

impl Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Words { vi, en } = words::state(self.0);
        write!(f, "<span class=\"state {}\">{vi}</span> <span lang=\"en\">{en}</span>", self.0)
    }
}

/// A time in Hanoi, and for programs in UTC.
struct Time(std::time::SystemTime);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = jiff::Timestamp::try_from(self.0).unwrap_or(jiff::Timestamp::MAX);
        let local = LOCAL_OFFSET.to_datetime(local);
        let shown = local.strftime("%H:%M:%S %d/%m/%Y");
        write!(f, "<time datetime=\"{}\">{shown}</time>", rfc3339::text(self.0))
    }
}

/// Text that cannot become markup.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
