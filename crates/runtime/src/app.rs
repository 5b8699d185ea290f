//! From the command line to the command, and from the failure to the exit code.

use crate::args::{self, Arity, Command, UsageError};
use crate::commands::COMMANDS;
use crate::context::{Context, GLOBALS, Global, VERSION};
use crate::failure::{CODE_FAILURE, Failure};
use crate::{logging, output};
use std::ffi::OsString;
use std::path::Path;

/// Name of the program when it is not called by another one.
const PROGRAM: &str = "carrack-runtime";
/// What the program is, for its help.
const ABOUT: &str =
    "   Creates and runs containers from bundles: directories with a root file system and a
   config.json that follows the Open Container Initiative's runtime specification. Engines
   such as podman, docker and containerd call it in place of runc.

   A first container:

      mkdir -p bundle/rootfs        # then fill bundle/rootfs with a root file system
      carrack-runtime spec --bundle bundle
      carrack-runtime run --bundle bundle first";

/// Runs the program; the result is its exit code.
pub fn main(mut argv: impl Iterator<Item = OsString>) -> u8 {
    let program = program_name(argv.next());
    match dispatch(&program, argv) {
        Ok(code) => code,
        Err(failure) => {
            logging::fatal(&failure.message());
            if matches!(failure, Failure::Usage(_)) {
                eprintln!("See '{program} --help'.");
            }
            failure.code()
        }
    }
}

/// The last part of `argv[0]`, so that a link named `runc` speaks of itself as such.
fn program_name(argv0: Option<OsString>) -> String {
    let name = argv0.as_deref().map(Path::new).and_then(Path::file_name);
    name.and_then(|name| name.to_str())
        .filter(|name| !name.is_empty())
        .unwrap_or(PROGRAM)
        .to_owned()
}

fn dispatch(program: &str, argv: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    let matches = args::parse(GLOBALS, argv, true)?;
    if matches.on(&VERSION) {
        output::print(&version(program))?;
        return Ok(0);
    }
    let global = Global::new(&matches)?;
    if let Err(source) = logging::start(global.log.as_deref(), global.log_json, global.debug) {
        return Err(Failure::file(
            "open the log",
            global.log.unwrap_or_default(),
            source,
        ));
    }
    let mut rest = matches.args.into_iter();
    let name = rest.next().unwrap_or_default();
    match name.to_str() {
        Some("") | None if !matches.help && !name.is_empty() => Err(unknown(&name)),
        Some("") | None => help(program, None),
        Some("help" | "h") => help(program, rest.next()),
        Some("man") => man(program, rest.next()),
        Some("version") => {
            output::print(&version(program))?;
            Ok(0)
        }
        Some(_) if matches.help => help(program, Some(name)),
        Some(_) => run(program, global, find(&name)?, rest),
    }
}

/// Commands that put a process of ours into a container: `carrack_sys::prestart`
/// knows the same words.
const ENTERING: [&str; 5] = ["create", "run", "exec", "restore", "monitor"];

fn run(
    program: &str,
    global: Global,
    command: &'static Command,
    rest: impl Iterator<Item = OsString>,
) -> Result<u8, Failure> {
    let trailing = matches!(command.arity, Arity::Trailing(_));
    let matches = args::parse(command.flags, rest, trailing)?;
    if matches.help {
        return help(program, Some(command.name.into()));
    }
    matches.check_arity(command)?;
    if ENTERING.contains(&command.name) {
        carrack_container::shield()?;
    }
    (command.run)(&Context {
        program: program.to_owned(),
        global,
        matches,
    })
}

fn find(name: &OsString) -> Result<&'static Command, Failure> {
    let found = COMMANDS.iter().find(|command| name == command.name);
    found.copied().ok_or_else(|| unknown(name))
}

fn unknown(name: &OsString) -> Failure {
    let given = name.to_string_lossy().into_owned();
    let names = COMMANDS.iter().filter(|c| !c.hidden).map(|c| c.name);
    let nearest = args::nearest(&given, names).map(str::to_owned);
    UsageError::UnknownCommand { given, nearest }.into()
}

fn help(program: &str, command: Option<OsString>) -> Result<u8, Failure> {
    let text = match command {
        None => args::program_help(program, ABOUT, COMMANDS, GLOBALS),
        Some(name) => args::command_help(program, find(&name)?),
    };
    output::print(&text)?;
    Ok(0)
}

fn man(program: &str, command: Option<OsString>) -> Result<u8, Failure> {
    let command = command.map(|name| find(&name)).transpose()?;
    let text = args::man_page(program, ABOUT, COMMANDS, GLOBALS, command);
    output::print(&text)?;
    Ok(0)
}

/// What `--version` prints; the words before the colons are runc's, as engines look for them.
fn version(program: &str) -> String {
    let mut text = format!("{program} version {}\n", env!("CARGO_PKG_VERSION"));
    if let Some(commit) = option_env!("CARRACK_COMMIT") {
        text.push_str("commit: ");
        text.push_str(commit);
        text.push('\n');
    }
    text.push_str("spec: ");
    text.push_str(carrack_spec::runtime::OCI_VERSION);
    text.push('\n');
    text
}

const _: () = assert!(CODE_FAILURE == 1, "callers of runc expect 1");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Flag;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_in_every_table() {
        fn check(flags: &[&Flag], of: &str) {
            let mut seen = BTreeSet::from(["help".to_owned(), "h".to_owned()]);
            for flag in flags {
                assert!(seen.insert(flag.name.to_owned()), "{of} --{}", flag.name);
                if let Some(short) = flag.short {
                    assert!(seen.insert(short.to_string()), "{of} -{short}");
                }
            }
        }
        check(GLOBALS, "global");
        let mut names = BTreeSet::new();
        for command in COMMANDS {
            assert!(names.insert(command.name), "{}", command.name);
            check(command.flags, command.name);
        }
    }

    #[test]
    fn every_command_of_runc_is_known() {
        for name in [
            "checkpoint",
            "create",
            "delete",
            "events",
            "exec",
            "kill",
            "list",
            "pause",
            "ps",
            "restore",
            "resume",
            "run",
            "spec",
            "start",
            "state",
            "update",
            "features",
        ] {
            assert!(find(&name.into()).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_help_and_manual_page_names_its_flags() {
        for command in COMMANDS {
            let help = args::command_help(PROGRAM, command);
            let man = args::man_page(PROGRAM, ABOUT, COMMANDS, GLOBALS, Some(command));
            for flag in command.flags.iter().filter(|flag| !flag.hidden) {
                assert!(help.contains(&format!("--{}", flag.name)), "{}", flag.name);
                let name = flag.name.replace('-', "\\-");
                assert!(man.contains(&format!("\\-\\-{name}")), "{}", flag.name);
                assert!(!flag.help.is_empty(), "{}", flag.name);
            }
        }
    }

    #[test]
    fn a_link_of_another_name_speaks_of_itself() {
        assert_eq!(program_name(Some("/usr/bin/runc".into())), "runc");
        assert_eq!(program_name(None), PROGRAM);
    }
}
