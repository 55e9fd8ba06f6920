//! What the screen shows and how keys change it. Pure.

use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{self, Column, Direction, Row};
use crate::fleet::Fleet;

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) place: Place,
    pub(super) nodes: List,
    pub(super) guests: List,
    pub(super) mode: Mode,
    pub(super) link: Link,
}

/// Which table is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    Nodes,
    /// What runs on a node, by its full name.
    Guests { node: String, tab: Tab },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Vms,
    Containers,
}

/// What keys do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Browse,
    /// Typing goes to the filter.
    Filter,
    Help,
}

/// The connection, for the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    #[default]
    Connecting,
    Live,
    Lost {
        why: String,
        retry_in: std::time::Duration,
    },
}

/// How one table is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    /// By full name, so that it follows a row that moves.
    selected: Option<String>,
    /// Where the selection was, for when its row is gone.
    at: usize,
    pub(super) filter: String,
    pub(super) column: usize,
    pub(super) direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Goes,
    Quits,
}

/// As many rows as PageUp and PageDown pass.
const PAGE: isize = 10;
const MAX_FILTER: usize = 64;

impl State {
    pub(super) fn list(&self) -> &List {
        match self.place {
            Place::Nodes => &self.nodes,
            Place::Guests { .. } => &self.guests,
        }
    }

    fn list_mut(&mut self) -> &mut List {
        match self.place {
            Place::Nodes => &mut self.nodes,
            Place::Guests { .. } => &mut self.guests,
        }
    }

    pub(super) fn columns(&self) -> &'static [Column] {
        match self.place {
            Place::Nodes => rows::NODES,
            Place::Guests { tab: Tab::Vms, .. } => rows::VMS,
            Place::Guests { tab: Tab::Containers, .. } => rows::CONTAINERS,
        }
    }

    /// The rows as they are shown.
    pub(super) fn rows(&self, fleet: &Fleet, now: Instant) -> Vec<Row> {
        let all = match &self.place {
            Place::Nodes => rows::nodes(fleet, now),
            Place::Guests { node, tab: Tab::Vms } => rows::vms(fleet, node, now),
            Place::Guests { node, tab: Tab::Containers } => rows::containers(fleet, node, now),
        };
        let list = self.list();
        rows::arranged(all, &list.filter, list.column, list.direction)
    }

    /// Takes in a key while `rows` are shown.
    pub(super) fn key(&mut self, key: KeyEvent, rows: &[Row]) -> Flow {
        if key.kind == KeyEventKind::Release {
            return Flow::Goes;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Flow::Quits } else { Flow::Goes };
        }
        match self.mode {
            Mode::Browse => return self.browse(key.code, rows),
            Mode::Filter => self.edit(key.code),
            Mode::Help => self.mode = Mode::Browse,
        }
        Flow::Goes
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing here")]
    fn browse(&mut self, key: KeyCode, rows: &[Row]) -> Flow {
        match key {
            KeyCode::Char('q') => return Flow::Quits,
            KeyCode::Char('?') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Down | KeyCode::Char('j') => self.list_mut().step(rows, 1),
            KeyCode::Up | KeyCode::Char('k') => self.list_mut().step(rows, -1),
            KeyCode::PageDown => self.list_mut().step(rows, PAGE),
            KeyCode::PageUp => self.list_mut().step(rows, -PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.list_mut().select(rows, 0),
            KeyCode::End | KeyCode::Char('G') => self.list_mut().select(rows, rows.len()),
            KeyCode::Char('s') => {
                let columns = self.columns().len();
                self.list_mut().sort_by_next(columns, rows);
            }
            KeyCode::Char('r') => {
                let list = self.list_mut();
                list.direction = match list.direction {
                    Direction::Ascending => Direction::Descending,
                    Direction::Descending => Direction::Ascending,
                };
            }
            KeyCode::Enter => self.enter(rows),
            KeyCode::Tab | KeyCode::BackTab => self.switch(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            _ => {}
        }
        Flow::Goes
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing here")]
    fn edit(&mut self, key: KeyCode) {
        let list = self.list_mut();
        match key {
            KeyCode::Enter => self.mode = Mode::Browse,
            KeyCode::Esc => {
                list.filter.clear();
                self.mode = Mode::Browse;
            }
            KeyCode::Backspace => drop(list.filter.pop()),
            KeyCode::Char(c) if list.filter.len() < MAX_FILTER => list.filter.push(c),
            _ => {}
        }
    }

    fn enter(&mut self, rows: &[Row]) {
        if self.place == Place::Nodes
            && let Some(row) = self.nodes.position(rows).and_then(|at| rows.get(at))
        {
            self.place = Place::Guests { node: row.name.clone(), tab: Tab::Vms };
            self.guests = List::default();
        }
    }

    fn switch(&mut self) {
        if let Place::Guests { tab, .. } = &mut self.place {
            *tab = match tab {
                Tab::Vms => Tab::Containers,
                Tab::Containers => Tab::Vms,
            };
            self.guests = List { filter: std::mem::take(&mut self.guests.filter), ..List::default() };
        }
    }

    /// One step out: first of the filter, then of the node.
    fn back(&mut self) {
        if self.list().filter.is_empty() {
            self.place = Place::Nodes;
        } else {
            self.list_mut().filter.clear();
        }
    }
}

impl List {
    /// The selected row; the one that took its place when it is gone.
    pub(super) fn position(&self, rows: &[Row]) -> Option<usize> {
        let named = self.selected.as_ref().and_then(|name| rows.iter().position(|row| row.name == *name));
        named.or_else(|| rows.len().checked_sub(1).map(|last| self.at.min(last)))
    }

    fn step(&mut self, rows: &[Row], by: isize) {
        let at = self.position(rows).unwrap_or_default();
        self.select(rows, at.saturating_add_signed(by));
    }

    fn select(&mut self, rows: &[Row], at: usize) {
        let at = at.min(rows.len().saturating_sub(1));
        self.at = at;
        self.selected = rows.get(at).map(|row| row.name.clone());
    }

    fn sort_by_next(&mut self, columns: usize, rows: &[Row]) {
        self.column = (self.column + 1) % columns.max(1);
        let cell = rows.first().and_then(|row| row.cells.get(self.column));
        self.direction = cell.map(rows::Value::natural).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::rows::{Freshness, Value};

    fn rows(names: &[&str]) -> Vec<Row> {
        let row = |name: &&str| Row {
            name: format!("nodes/{name}"),
            cells: vec![Value::Text((*name).to_owned()), Value::Percent(None)],
            freshness: Freshness::Fresh,
        };
        names.iter().map(row).collect()
    }

    fn press(state: &mut State, code: KeyCode, rows: &[Row]) -> Flow {
        state.key(KeyEvent::new(code, KeyModifiers::NONE), rows)
    }

    #[test]
    fn the_selection_follows_its_row() {
        let mut state = State::default();
        let before = rows(&["a", "b", "c"]);
        press(&mut state, KeyCode::Char('j'), &before);
        assert_eq!(state.list().position(&before), Some(1));
        assert_eq!(state.list().position(&rows(&["c", "a", "b"])), Some(2));
        assert_eq!(state.list().position(&rows(&["c", "a"])), Some(1));
        assert_eq!(state.list().position(&[]), None);
        press(&mut state, KeyCode::End, &before);
        press(&mut state, KeyCode::Down, &before);
        assert_eq!(state.list().position(&before), Some(2));
        press(&mut state, KeyCode::PageUp, &before);
        assert_eq!(state.list().position(&before), Some(0));
    }

    #[test]
    fn enter_shows_a_nodes_guests_tab_switches_and_escape_goes_back() {
        let mut state = State::default();
        let shown = rows(&["a", "b"]);
        press(&mut state, KeyCode::Down, &shown);
        press(&mut state, KeyCode::Enter, &shown);
        assert_eq!(state.place, Place::Guests { node: "nodes/b".into(), tab: Tab::Vms });
        press(&mut state, KeyCode::Tab, &[]);
        assert_eq!(state.place, Place::Guests { node: "nodes/b".into(), tab: Tab::Containers });
        press(&mut state, KeyCode::Esc, &[]);
        assert_eq!(state.place, Place::Nodes);
        assert_eq!(state.list().position(&shown), Some(1), "where it was left");
        assert_eq!(press(&mut State::default(), KeyCode::Enter, &[]), Flow::Goes);
    }

    #[test]
    fn while_a_filter_is_typed_no_letter_is_a_command() {
        let mut state = State::default();
        for key in ['/', 'q', 's', 'x'] {
            assert_eq!(press(&mut state, KeyCode::Char(key), &[]), Flow::Goes);
        }
        press(&mut state, KeyCode::Backspace, &[]);
        press(&mut state, KeyCode::Enter, &[]);
        assert_eq!((state.list().filter.as_str(), state.mode), ("qs", Mode::Browse));
        press(&mut state, KeyCode::Esc, &[]);
        assert_eq!(state.list().filter, "");
        assert_eq!(press(&mut state, KeyCode::Char('q'), &[]), Flow::Quits);
    }

    #[test]
    fn control_c_quits_in_every_mode() {
        for mode in [Mode::Browse, Mode::Filter, Mode::Help] {
            let mut state = State { mode, ..State::default() };
            let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(state.key(key, &[]), Flow::Quits);
        }
    }

    #[test]
    fn numbers_are_sorted_from_the_largest_and_r_reverses() {
        let mut state = State::default();
        let shown = rows(&["a"]);
        press(&mut state, KeyCode::Char('s'), &shown);
        assert_eq!((state.list().column, state.list().direction), (1, Direction::Descending));
        press(&mut state, KeyCode::Char('r'), &shown);
        assert_eq!(state.list().direction, Direction::Ascending);
        for _ in 1..rows::NODES.len() {
            press(&mut state, KeyCode::Char('s'), &shown);
        }
        assert_eq!(state.list().column, 0);
    }
}
