//! Draws the state. Nothing is decided here.

use std::time::Instant;

use horcrux_proto::v1::{Node, NodeState};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table, TableState};

use super::rows::{Direction, Freshness, Row, Value, fitting};
use super::state::{Link, Mode, Place, State, Tab};
use crate::fleet::Fleet;
use crate::footnotes::{self, Listed};
use crate::view::quantity::seconds;
use crate::view::{bare, shown};

const HELP: &str = " arrows, j, k     move               PgUp, PgDn, g, G  further
 Enter            a node's guests    Tab               VMs or containers
 Esc              back               /                 filter
 s                sort by the next   r                 reverse
 q, Ctrl-C        quit               ?                 this help

 ~ from 50 %      ! from 75 %        !! from 90 %
 dimmed: no sample for 15 s, or no connection to the node or the controller
 -: no value

 any key closes this";

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, fleet: &Fleet, url: &str, now: Instant) {
    let notes = notes(state, fleet);
    let lines = u16::try_from(notes.len()).unwrap_or(0);
    let [head, body, told, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(lines),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(notes).style(Style::new().fg(Color::Yellow)), told);
    frame.render_widget(header(state, fleet, url), head);
    let rows = state.rows(fleet, now);
    if rows.is_empty() {
        frame.render_widget(Paragraph::new(nothing(state, fleet)), body);
    } else {
        table(frame, body, state, &rows);
    }
    frame.render_widget(footer(state, rows.len()), foot);
    if state.mode == Mode::Help {
        help(frame);
    }
}

fn header(state: &State, fleet: &Fleet, url: &str) -> Paragraph<'static> {
    let (mark, word, style) = match &state.link {
        Link::Connecting => ("o", "connecting".to_owned(), Style::new().fg(Color::Yellow)),
        Link::Live => ("*", "live".to_owned(), Style::new().fg(Color::Green)),
        Link::Lost { why, retry_in } => {
            let wait = seconds(retry_in.as_secs_f64());
            let text = format!("DISCONNECTED, trying again in {wait}: {}", shown(why));
            ("x", text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
        }
    };
    let place = match &state.place {
        Place::Nodes => "nodes".to_owned(),
        Place::Guests { node, tab: Tab::Vms } => format!("{}: VMs", shown(bare(node))),
        Place::Guests { node, tab: Tab::Containers } => format!("{}: containers", shown(bare(node))),
    };
    let mut spans = vec![
        Span::styled(format!("{place}  "), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{url}  ")),
        Span::styled(format!("{mark} {word}"), style),
    ];
    if fleet.missed.gaps > 0 {
        let missed = fleet.missed;
        let text =
            format!("  gaps: {} ({} updates, {} events missed)", missed.gaps, missed.ticks, missed.events);
        spans.push(Span::styled(text, Style::new().fg(Color::Yellow)));
    }
    Paragraph::new(Line::from(spans))
}

/// What can't be shown here, and why: as much as leaves room for what can.
fn notes(state: &State, fleet: &Fleet) -> Vec<Line<'static>> {
    const MOST: usize = 2;
    let nodes = || fleet.nodes().map(|(node, _)| node);
    let mut told = match &state.place {
        Place::Nodes => {
            // How a node itself is, its row says.
            let answers = |node: &&Node| matches!(node.state(), NodeState::Connected | NodeState::Here);
            let mut told = footnotes::missing(Listed::Vms, nodes().filter(answers), None);
            told.extend(footnotes::missing(Listed::Containers, nodes().filter(answers), None));
            told.sort();
            told.dedup();
            told
        }
        Place::Guests { node, tab: Tab::Vms } => footnotes::missing(Listed::Vms, nodes(), Some(node)),
        Place::Guests { node, tab: Tab::Containers } => {
            footnotes::missing(Listed::Containers, nodes(), Some(node))
        }
    };
    if told.len() > MOST {
        let more = told.split_off(MOST - 1).len();
        told.push(format!(
            "and {more} more: `horcruxctl node get NODE` shows how each of its sources is doing"
        ));
    }
    told.into_iter().map(Line::from).collect()
}

fn nothing(state: &State, fleet: &Fleet) -> &'static str {
    if !fleet.is_complete() {
        "waiting for the first snapshot"
    } else if !state.list().filter.is_empty() {
        "nothing fits the filter: Esc clears it"
    } else {
        match state.place {
            Place::Nodes => "no nodes that you may see",
            Place::Guests { tab: Tab::Vms, .. } => "no VMs here: Tab shows containers",
            Place::Guests { tab: Tab::Containers, .. } => "no containers here: Tab shows VMs",
        }
    }
}

fn table(frame: &mut Frame<'_>, area: Rect, state: &State, rows: &[Row]) {
    let list = state.list();
    let columns = state.columns();
    let mut places = fitting(columns, area.width.saturating_sub(1));
    if places.is_empty() {
        places.push(0);
    }
    let headings = places.iter().map(|&at| {
        let arrow = match (at == list.column, list.direction) {
            (false, _) => "",
            (true, Direction::Ascending) => "^",
            (true, Direction::Descending) => "v",
        };
        let is_text = rows.first().is_some_and(|row| matches!(row.cells.get(at), Some(Value::Text(_))));
        let alignment = if is_text { Alignment::Left } else { Alignment::Right };
        Cell::from(Text::from(format!("{}{arrow}", columns[at].title)).alignment(alignment))
    });
    let dim_all = matches!(state.link, Link::Lost { .. });
    let lines = rows.iter().map(|row| {
        let is_stale = dim_all || row.freshness == Freshness::Stale;
        let line =
            TableRow::new(places.iter().filter_map(|&at| row.cells.get(at)).map(|v| cell(v, is_stale)));
        if is_stale { line.style(Style::new().add_modifier(Modifier::DIM)) } else { line }
    });
    let widths = places.iter().map(|&at| {
        // The first column takes what is left.
        if at == 0 { Constraint::Min(columns[at].width) } else { Constraint::Length(columns[at].width) }
    });
    let table = Table::new(lines, widths)
        .header(
            TableRow::new(headings).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)),
        )
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .highlight_symbol(">");
    let mut selection = TableState::new().with_selected(list.position(rows));
    frame.render_stateful_widget(table, area, &mut selection);
}

fn cell(value: &Value, is_stale: bool) -> Cell<'static> {
    let alignment = if matches!(value, Value::Text(_)) { Alignment::Left } else { Alignment::Right };
    let text = Text::from(value.text()).alignment(alignment);
    let cell = Cell::from(text);
    match value {
        // An old value's colour would call for something that may be over.
        Value::Percent(Some(percent)) if !is_stale => cell.style(heat(*percent)),
        Value::Text(_)
        | Value::Percent(_)
        | Value::Load(_)
        | Value::Whole(_)
        | Value::Rate(_)
        | Value::Count(_)
        | Value::Age(_) => cell,
    }
}

fn heat(percent: f32) -> Style {
    match percent {
        p if p >= 90.0 => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        p if p >= 75.0 => Style::new().fg(Color::LightRed),
        p if p >= 50.0 => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::Green),
    }
}

fn footer(state: &State, rows: usize) -> Paragraph<'static> {
    let filter = &state.list().filter;
    let text = match state.mode {
        Mode::Filter => format!("/{filter}_   Enter keeps, Esc clears"),
        Mode::Browse | Mode::Help if filter.is_empty() => {
            format!("{rows} shown   ? help  / filter  s sort  r reverse  q quit")
        }
        Mode::Browse | Mode::Help => format!("{rows} shown of those with {filter:?}   Esc clears"),
    };
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::DIM))
}

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX).saturating_add(2);
    let [area] = Layout::vertical([Constraint::Max(lines)]).areas(area);
    let [area] = Layout::horizontal([Constraint::Max(80)]).areas(area);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" keys ")), area);
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
