//! The command line's grammar: what flags and commands are, and the parser.
//!
//! One table entry (a [`Flag`] or [`Command`]) is the only source of parsing,
//! of `--help` and of the manual pages. The grammar is the one that callers of
//! runc rely on, that of Go's `flag` package with flags allowed behind
//! positional arguments:
//!
//! ```text
//! -name  --name              a switch, or a flag whose value is the next argument
//! -name=value  --name=value  also for switches: --force=false
//! -x  -xyz                   short names; several switches may share one dash
//! --                         ends the flags;  - alone is a positional argument
//! ```
//!
//! Parsing does no I/O and never panics; an error is a [`UsageError`] that
//! names the nearest known word.

mod help;
mod man;
mod parse;
mod suggest;

pub use help::{command_help, program_help};
pub use man::page as man_page;
pub use parse::{Matches, UsageError, boolean, parse};
pub use suggest::nearest;

use crate::context::Context;
use crate::failure::Failure;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true`/`=false`.
    Switch,
    /// Any text; the word stands for it in the help.
    Text(&'static str),
    /// A number.
    Integer(&'static str),
    /// Any text, and the flag may be given more than once.
    List(&'static str),
}

/// A flag.
#[derive(Debug)]
pub struct Flag {
    /// The long name, without dashes.
    pub name: &'static str,
    /// The one-letter name.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// One sentence for the help.
    pub help: &'static str,
    /// Accepted for the sake of old callers, not shown.
    pub hidden: bool,
}

impl Flag {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            short: None,
            kind,
            help,
            hidden: false,
        }
    }

    /// A flag without a value.
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Switch, help)
    }

    /// A flag with a text.
    pub const fn text(name: &'static str, word: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Text(word), help)
    }

    /// A flag with a number.
    pub const fn integer(name: &'static str, word: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Integer(word), help)
    }

    /// A flag with a text that may be repeated.
    pub const fn list(name: &'static str, word: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::List(word), help)
    }

    /// The same flag with a one-letter name.
    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// The same flag, left out of the help.
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    fn word(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Switch => None,
            Kind::Text(word) | Kind::Integer(word) | Kind::List(word) => Some(word),
        }
    }
}

/// How many positional arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// This many.
    Exactly(usize),
    /// This many or more; flags behind the first belong to the container's program.
    Trailing(usize),
    /// At least the first, at most the second number.
    Between(usize, usize),
}

/// A subcommand.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// Positional arguments as the help shows them.
    pub arguments: &'static str,
    /// Paragraphs for its own help.
    pub description: &'static str,
    /// Its flags.
    pub flags: &'static [&'static Flag],
    /// How many positional arguments it takes.
    pub arity: Arity,
    /// Not shown in the list of commands.
    pub hidden: bool,
    /// Carries it out; the number is the exit code.
    pub run: fn(&Context) -> Result<u8, Failure>,
}

/// The flag every command has.
pub static HELP: Flag = Flag::switch("help", "show this help").short('h');
