//! A daemon's settings: one TOML file whose keys are all known, and whose problems are all told at once.
//!
//! serde would stop at the first key that is unknown or of the wrong type; people want to hear of all of them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A settings file that is being read: each setting is taken once, and what is left at the end is unknown.
#[derive(Debug)]
pub struct Settings {
    path: PathBuf,
    table: toml::Table,
    known: BTreeSet<&'static str>,
    problems: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not valid: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{} has {}:\n  {}", path.display(), count(problems), problems.join("\n  "))]
    Invalid { path: PathBuf, problems: Vec<String> },
}

fn count(problems: &[String]) -> String {
    format!("{} problem{}", problems.len(), if problems.len() == 1 { "" } else { "s" })
}

impl Settings {
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// From `given`, which must be there, or from `usual`, without which every setting has its default.
    pub fn load_or_default(given: Option<&Path>, usual: &Path) -> Result<Self, SettingsError> {
        match given {
            Some(path) => Self::load(path),
            None => match Self::load(usual) {
                Err(SettingsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Self::parse("", usual)
                }
                loaded => loaded,
            },
        }
    }

    /// `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        let table = text.parse().map_err(|error: toml::de::Error| SettingsError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Ok(Self { path: path.to_owned(), table, known: BTreeSet::new(), problems: Vec::new() })
    }

    pub fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?;
        match value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => self.wrong(key, &value, "a string"),
        }
    }

    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let text = |item: &toml::Value| item.as_str().map(ToOwned::to_owned);
        match value.as_array().and_then(|list| list.iter().map(text).collect()) {
            Some(list) => Some(list),
            None => self.wrong(key, &value, "a list of strings"),
        }
    }

    /// What `parse` makes of a string; `expected` says what it should have been.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.problem(format!("{key}: {text:?} is not {expected}"));
        }
        parsed
    }

    /// A duration with its unit, no shorter than `least` and no longer than `most`.
    pub fn duration(&mut self, key: &'static str, least: Duration, most: Duration) -> Option<Duration> {
        let expected = format!("a duration from {least:?} to {most:?}, such as 500ms, 10s, 5m or 12h");
        self.parsed(key, &expected, |text| duration(text).filter(|d| (least..=most).contains(d)))
    }

    /// A size with its unit, no smaller than `least` and no larger than `most`, in bytes.
    pub fn size(&mut self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let expected = format!("a size from {least} to {most} bytes, such as 512KiB, 64MiB or 2GiB");
        self.parsed(key, &expected, |text| size(text).filter(|size| (least..=most).contains(size)))
    }

    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        match value.as_bool() {
            Some(flag) => Some(flag),
            None => self.wrong(key, &value, "true or false"),
        }
    }

    /// The tables below `key`, by their names: `[key.NAME]`. What is wrong in one is told with where it is.
    pub fn tables<T>(&mut self, key: &'static str, mut read: impl FnMut(&str, &mut Settings) -> T) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let toml::Value::Table(tables) = value else {
            return self.wrong(key, &value, "tables").unwrap_or_default();
        };
        let mut all = Vec::new();
        for (name, value) in tables {
            let toml::Value::Table(table) = value else {
                self.problem(format!("{key}.{name}: expected a table, found {}", value.type_str()));
                continue;
            };
            all.push(self.within(&format!("{key}.{name}"), table, |inner| read(&name, inner)));
        }
        all
    }

    /// The table `[key]`. What is wrong in it is told with where it is.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Settings) -> T) -> Option<T> {
        let value = self.take(key)?;
        let toml::Value::Table(table) = value else { return self.wrong(key, &value, "a table") };
        Some(self.within(key, table, read))
    }

    fn within<T>(&mut self, place: &str, table: toml::Table, read: impl FnOnce(&mut Settings) -> T) -> T {
        let mut inner =
            Settings { path: self.path.clone(), table, known: BTreeSet::new(), problems: Vec::new() };
        let read = read(&mut inner);
        inner.tell_unknown();
        self.problems.extend(inner.problems.into_iter().map(|problem| format!("{place}.{problem}")));
        read
    }

    /// Something else that is wrong.
    pub fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// `settings` if nothing was wrong and nothing is left.
    pub fn finish<T>(mut self, settings: T) -> Result<T, SettingsError> {
        self.tell_unknown();
        if self.problems.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsError::Invalid { path: self.path, problems: self.problems })
        }
    }

    fn tell_unknown(&mut self) {
        let unknown = self.table.keys().filter(|key| !self.known.contains(key.as_str()));
        self.problems.extend(unknown.map(|key| format!("{key}: no such setting")));
    }

    fn take(&mut self, key: &'static str) -> Option<toml::Value> {
        self.known.insert(key);
        self.table.remove(key)
    }

    fn wrong<T>(&mut self, key: &str, found: &toml::Value, expected: &str) -> Option<T> {
        self.problem(format!("{key}: expected {expected}, found {}", found.type_str()));
        None
    }
}

/// A size with its unit: `4096B`, `512KiB`, `64MiB`, `2GiB`.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// A duration with its unit: `500ms`, `10s`, `5m`, `12h`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_table_is_told_with_its_place() {
        let text = "[realm.corp]\nkind = 5\nurl = 'x'\n[realm.ok]\nkind = 'pam'";
        let mut settings = Settings::parse(text, Path::new("f")).unwrap();
        let read = settings.tables("realm", |name, inner| (name.to_owned(), inner.text("kind")));
        assert_eq!(read, [("corp".to_owned(), None), ("ok".to_owned(), Some("pam".to_owned()))]);
        let told = settings.finish(()).unwrap_err().to_string();
        assert!(
            told.contains("realm.corp.kind: expected") && told.contains("realm.corp.url: no such"),
            "{told}"
        );
    }

    #[test]
    fn a_table_is_read_once_and_its_problems_have_a_place() {
        let mut settings = Settings::parse("[one]\na = 5\nb = 'x'", Path::new("f")).unwrap();
        assert_eq!(settings.table("one", |inner| inner.text("b")), Some(Some("x".to_owned())));
        assert_eq!(settings.table("two", |_| ()), None);
        let told = settings.finish(()).unwrap_err().to_string();
        assert!(told.contains("one.a: no such"), "{told}");
        let mut settings = Settings::parse("one = 5", Path::new("f")).unwrap();
        assert_eq!(settings.table("one", |_| ()), None);
        assert!(settings.finish(()).unwrap_err().to_string().contains("one: expected a table"));
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn settings(text: &str) -> Settings {
        Settings::parse(text, Path::new("x.toml")).unwrap()
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("12h"), Some(Duration::from_secs(12 * 3600)));
        for wrong in ["", "5", "s", "1 s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!((size("64MiB"), size("4096B")), (Some(64 << 20), Some(4096)));
        for wrong in ["", "5", "MiB", "64 MiB", "64MB", "-1KiB", "99999999999999999999GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn problems_of_every_kind_are_told_together() {
        let mut read = settings("a = 5\nb = 'x'\nc = ['y', 1]\nd = '10h'\nnonsense = 1\n");
        assert_eq!(read.text("a"), None);
        assert_eq!(read.parsed("b", "a number", |text| text.parse::<u8>().ok()), None);
        assert_eq!(read.texts("c"), None);
        assert_eq!(read.duration("d", SECOND, 60 * SECOND), None);
        let told = read.finish(()).unwrap_err().to_string();
        for part in
            ["5 problems", "a: expected a string, found integer", "b: \"x\"", "c: ", "d: ", "nonsense: no"]
        {
            assert!(told.contains(part), "{part} is missing in: {told}");
        }
    }

    #[test]
    fn a_usual_file_may_be_missing_and_a_given_one_may_not() {
        let missing = Path::new("/nonexistent/x.toml");
        assert!(Settings::load_or_default(None, missing).unwrap().finish(()).is_ok());
        assert!(matches!(Settings::load_or_default(Some(missing), missing), Err(SettingsError::Read { .. })));
    }

    #[test]
    fn what_is_right_is_given() {
        let mut read = settings("a = 'x'\nb = ['y']\nc = '2s'\n");
        assert_eq!(read.text("a").as_deref(), Some("x"));
        assert_eq!(read.texts("b"), Some(vec!["y".to_owned()]));
        assert_eq!(read.duration("c", SECOND, 60 * SECOND), Some(2 * SECOND));
        assert_eq!(read.text("d"), None, "what isn't set is nothing wrong");
        assert_eq!(read.finish(7).unwrap(), 7);
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_with_the_place() {
        let told = Settings::parse("a = ", Path::new("x.toml")).unwrap_err().to_string();
        assert!(told.starts_with("x.toml is not valid") && told.contains("line 1"), "{told}");
    }
}
