//! The parser (grammar: see the parent module).

use super::{Arity, Command, Flag, HELP, Kind, nearest};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A command line that does not follow the grammar. Every message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No flag has this name.
    #[error("unknown flag {given}{}", hint(.nearest))]
    UnknownFlag {
        /// As it was given, with its dashes.
        given: String,
        /// A known flag that looks like it.
        nearest: Option<String>,
    },
    /// No command has this name.
    #[error("unknown command {given:?}{}", hint(.nearest))]
    UnknownCommand {
        /// As it was given.
        given: String,
        /// A known command that looks like it.
        nearest: Option<String>,
    },
    /// The flag needs a value and is the last argument.
    #[error("flag --{flag} needs a value ({word})")]
    MissingValue {
        /// The flag.
        flag: &'static str,
        /// What it takes.
        word: &'static str,
    },
    /// The value is not of the flag's kind.
    #[error("flag --{flag}: {value:?} is not {expected}")]
    BadValue {
        /// The flag.
        flag: &'static str,
        /// The value.
        value: String,
        /// What the flag takes.
        expected: &'static str,
    },
    /// Too few or too many positional arguments.
    #[error("{command:?} requires {expected} argument(s), got {got}")]
    Arguments {
        /// The command.
        command: &'static str,
        /// How many it takes, in words.
        expected: String,
        /// How many there are.
        got: usize,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|word| format!("; did you mean {word}?"))
        .unwrap_or_default()
}

/// What was given: flags in order, then positional arguments.
#[derive(Debug, Default)]
pub struct Matches {
    given: Vec<(&'static Flag, OsString)>,
    /// Positional arguments.
    pub args: Vec<OsString>,
    /// `--help` was given.
    pub help: bool,
}

impl Matches {
    fn last(&self, flag: &'static Flag) -> Option<&OsStr> {
        let mut found = self.given.iter().rev();
        found
            .find(|(other, _)| std::ptr::eq(*other, flag))
            .map(|(_, value)| value.as_os_str())
    }

    /// The flag was given, in whatever form.
    pub fn given(&self, flag: &'static Flag) -> bool {
        self.last(flag).is_some()
    }

    /// The switch is on.
    pub fn on(&self, flag: &'static Flag) -> bool {
        self.last(flag).is_some_and(|value| value == "true")
    }

    /// The flag's last value; an empty value counts as none, as callers pass
    /// their own unset options through.
    pub fn text(&self, flag: &'static Flag) -> Option<&OsStr> {
        self.last(flag).filter(|value| !value.is_empty())
    }

    /// The flag's last value as UTF-8.
    ///
    /// # Errors
    /// [`UsageError::BadValue`].
    pub fn utf8(&self, flag: &'static Flag) -> Result<Option<&str>, UsageError> {
        self.text(flag)
            .map(|value| value.to_str().ok_or_else(|| bad(flag, value, "UTF-8 text")))
            .transpose()
    }

    /// The flag's last value as a number (checked when it was parsed).
    pub fn integer(&self, flag: &'static Flag) -> Option<i64> {
        self.text(flag).and_then(number)
    }

    /// All values of a list flag as UTF-8.
    ///
    /// # Errors
    /// [`UsageError::BadValue`].
    pub fn list(&self, flag: &'static Flag) -> Result<Vec<String>, UsageError> {
        let mine = self.given.iter().filter(|(f, _)| std::ptr::eq(*f, flag));
        mine.map(|(_, value)| {
            let text = value.to_str();
            text.map(str::to_owned)
                .ok_or_else(|| bad(flag, value, "UTF-8 text"))
        })
        .collect()
    }

    /// Checks the number of positional arguments.
    ///
    /// # Errors
    /// [`UsageError::Arguments`].
    pub fn check_arity(&self, command: &Command) -> Result<(), UsageError> {
        let got = self.args.len();
        let expected = match command.arity {
            Arity::Exactly(n) if got != n => format!("exactly {n}"),
            Arity::Trailing(n) if got < n => format!("a minimum of {n}"),
            Arity::Between(n, _) if got < n => format!("a minimum of {n}"),
            Arity::Between(_, n) if got > n => format!("a maximum of {n}"),
            _ => return Ok(()),
        };
        Err(UsageError::Arguments {
            command: command.name,
            expected,
            got,
        })
    }
}

/// Parses `args`. With `stop_at_positional`, the first positional argument ends
/// the flags and stays in [`Matches::args`] with all that follows it.
///
/// # Errors
/// [`UsageError`].
pub fn parse(
    flags: &[&'static Flag],
    args: impl IntoIterator<Item = OsString>,
    stop_at_positional: bool,
) -> Result<Matches, UsageError> {
    let mut matches = Matches::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            matches.args.extend(args);
            break;
        }
        if bytes.first() != Some(&b'-') || bytes.len() == 1 {
            matches.args.push(arg);
            if stop_at_positional {
                matches.args.extend(args);
                break;
            }
            continue;
        }
        parse_flag(flags, &arg, &mut args, &mut matches)?;
    }
    Ok(matches)
}

fn parse_flag(
    flags: &[&'static Flag],
    arg: &OsStr,
    rest: &mut impl Iterator<Item = OsString>,
    matches: &mut Matches,
) -> Result<(), UsageError> {
    let bytes = arg.as_bytes();
    let body = bytes
        .strip_prefix(b"--")
        .or_else(|| bytes.strip_prefix(b"-"))
        .unwrap_or(bytes);
    let mut halves = body.splitn(2, |b| *b == b'=');
    let name = halves.next().unwrap_or_default();
    let inline = halves.next().map(|v| OsString::from_vec(v.to_vec()));
    let Some(flag) = find(flags, name) else {
        let bundle = switches(flags, bytes, inline.is_some()).ok_or_else(|| unknown(flags, arg))?;
        for flag in bundle {
            matches.push(flag, "true".into());
        }
        return Ok(());
    };
    let value = match (flag.kind, inline) {
        (Kind::Switch, None) => "true".into(),
        (Kind::Switch, Some(value)) => match boolean(&value) {
            Some(true) => "true".into(),
            Some(false) => "false".into(),
            None => return Err(bad(flag, &value, "true or false")),
        },
        (_, Some(value)) => value,
        (Kind::Text(word) | Kind::Integer(word) | Kind::List(word), None) => {
            rest.next().ok_or(UsageError::MissingValue {
                flag: flag.name,
                word,
            })?
        }
    };
    if matches!(flag.kind, Kind::Integer(_)) && number(&value).is_none() {
        return Err(bad(flag, &value, "a number"));
    }
    matches.push(flag, value);
    Ok(())
}

impl Matches {
    fn push(&mut self, flag: &'static Flag, value: OsString) {
        if std::ptr::eq(flag, &HELP) {
            self.help = value == "true";
        } else {
            self.given.push((flag, value));
        }
    }
}

fn find(flags: &[&'static Flag], name: &[u8]) -> Option<&'static Flag> {
    let is_it = |flag: &&Flag| {
        flag.name.as_bytes() == name
            || matches!((flag.short, name), (Some(short), [byte]) if short == char::from(*byte))
    };
    let mut all = flags.iter().copied().chain([&HELP]);
    all.find(|flag| is_it(flag))
}

/// `-it`: one dash, and every letter is the short name of a switch.
fn switches(flags: &[&'static Flag], arg: &[u8], inline: bool) -> Option<Vec<&'static Flag>> {
    let letters = arg.strip_prefix(b"-")?;
    if inline || letters.len() < 2 || letters.starts_with(b"-") {
        return None;
    }
    letters
        .iter()
        .map(|letter| find(flags, &[*letter]).filter(|flag| flag.kind == Kind::Switch))
        .collect()
}

fn unknown(flags: &[&'static Flag], arg: &OsStr) -> UsageError {
    let given = arg.to_string_lossy();
    let given = given.split('=').next().unwrap_or_default();
    let names = flags.iter().filter(|f| !f.hidden).map(|f| f.name);
    UsageError::UnknownFlag {
        given: given.to_owned(),
        nearest: nearest(given.trim_start_matches('-'), names).map(|name| format!("--{name}")),
    }
}

fn bad(flag: &Flag, value: &OsStr, expected: &'static str) -> UsageError {
    UsageError::BadValue {
        flag: flag.name,
        value: value.to_string_lossy().into_owned(),
        expected,
    }
}

/// The spellings of Go's `strconv.ParseBool`.
pub fn boolean(value: &OsStr) -> Option<bool> {
    match value.as_bytes() {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

fn number(value: &OsStr) -> Option<i64> {
    value.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    static BUNDLE: Flag = Flag::text("bundle", "DIR", "").short('b');
    static FORCE: Flag = Flag::switch("force", "").short('f');
    static TTY: Flag = Flag::switch("tty", "").short('t');
    static FDS: Flag = Flag::integer("preserve-fds", "N", "");
    static ENV: Flag = Flag::list("env", "NAME=VALUE", "").short('e');
    static FLAGS: &[&Flag] = &[&BUNDLE, &FORCE, &TTY, &FDS, &ENV];

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(Into::into).collect()
    }

    fn go(line: &str) -> Result<Matches, UsageError> {
        parse(FLAGS, words(line), false)
    }

    #[test]
    fn every_form_of_a_value_is_the_same() {
        for line in [
            "--bundle d",
            "-bundle d",
            "--bundle=d",
            "-bundle=d",
            "-b d",
            "--b=d",
        ] {
            assert_eq!(
                go(line).unwrap().text(&BUNDLE),
                Some("d".as_ref()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(
            go("-b --force x").unwrap().text(&BUNDLE),
            Some("--force".as_ref())
        );
        assert_eq!(go("--preserve-fds -1").unwrap().integer(&FDS), Some(-1));
    }

    #[test]
    fn switches_take_booleans_and_the_last_one_wins() {
        assert!(go("-f").unwrap().on(&FORCE));
        assert!(go("--force=1").unwrap().on(&FORCE));
        let off = go("--force --force=false").unwrap();
        assert!(off.given(&FORCE) && !off.on(&FORCE));
        assert!(matches!(
            go("--force=maybe"),
            Err(UsageError::BadValue { .. })
        ));
        let both = go("-ft id").unwrap();
        assert!(both.on(&FORCE) && both.on(&TTY));
    }

    #[test]
    fn flags_may_follow_positional_arguments_unless_these_end_them() {
        let matches = go("id --force").unwrap();
        assert!(matches.on(&FORCE));
        assert_eq!(matches.args, ["id"]);
        let matches = parse(FLAGS, words("-t id ls --force -- x"), true).unwrap();
        assert!(matches.on(&TTY) && !matches.on(&FORCE));
        assert_eq!(matches.args, ["id", "ls", "--force", "--", "x"]);
    }

    #[test]
    fn two_dashes_end_the_flags_and_one_dash_is_an_argument() {
        assert_eq!(go("-f -- -b").unwrap().args, ["-b"]);
        assert_eq!(go("- -f").unwrap().args, ["-"]);
    }

    #[test]
    fn lists_keep_their_order_and_their_commas() {
        let matches = go("-e a=1,2 --env b= -e=c").unwrap();
        assert_eq!(matches.list(&ENV).unwrap(), ["a=1,2", "b=", "c"]);
    }

    #[test]
    fn an_empty_value_counts_as_none() {
        let matches = parse(FLAGS, ["--bundle".into(), OsString::new()], false).unwrap();
        assert_eq!(matches.text(&BUNDLE), None);
        assert!(matches.given(&BUNDLE));
    }

    #[test]
    fn errors_name_the_nearest_word() {
        let error = go("--bundel d").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown flag --bundel; did you mean --bundle?"
        );
        assert_eq!(
            go("--zzzzzz").unwrap_err().to_string(),
            "unknown flag --zzzzzz"
        );
        assert!(matches!(go("-b"), Err(UsageError::MissingValue { .. })));
        assert!(matches!(
            go("--preserve-fds x"),
            Err(UsageError::BadValue { .. })
        ));
        assert!(matches!(go("-fx"), Err(UsageError::UnknownFlag { .. })));
        assert!(matches!(go("--=x"), Err(UsageError::UnknownFlag { .. })));
    }

    #[test]
    fn bytes_that_are_no_text_are_carried_or_refused() {
        let odd = OsString::from_vec(vec![b'/', 0xff]);
        let matches = parse(FLAGS, ["-b".into(), odd.clone()], false).unwrap();
        assert_eq!(matches.text(&BUNDLE), Some(odd.as_os_str()));
        assert!(matches.utf8(&BUNDLE).is_err());
        assert!(parse(FLAGS, [OsString::from_vec(vec![b'-', 0xff])], false).is_err());
    }
}
