//! `--help`, made from the tables. Pure: the text is returned, not printed.

use super::{Command, Flag, HELP, Kind};

/// Column at which the help of a flag starts.
const HELP_COLUMN: usize = 32;
/// Widest line.
const LINE_CHARS_MAX: usize = 100;

/// Help for the program as a whole.
pub fn program_help(
    program: &str,
    about: &str,
    commands: &[&Command],
    globals: &[&Flag],
) -> String {
    let mut text = format!(
        "NAME:\n   {program} - run containers by the Open Container Initiative's specification\n\n\
         USAGE:\n   {program} [global options] COMMAND [options] [arguments]\n\n\
         DESCRIPTION:\n{about}\n\nCOMMANDS:\n"
    );
    for command in commands.iter().filter(|command| !command.hidden) {
        entry(&mut text, command.name, command.summary);
    }
    entry(&mut text, "help", "show this help, or that of one command");
    text.push_str("\nGLOBAL OPTIONS:\n");
    options(&mut text, globals);
    text
}

/// Help for one command.
pub fn command_help(program: &str, command: &Command) -> String {
    let name = command.name;
    let mut text = format!(
        "NAME:\n   {program} {name} - {}\n\nUSAGE:\n   {program} {name} [options] {}\n",
        command.summary, command.arguments
    );
    if !command.description.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        text.push_str(command.description);
        text.push('\n');
    }
    text.push_str("\nOPTIONS:\n");
    options(&mut text, command.flags);
    text
}

fn options(text: &mut String, flags: &[&Flag]) {
    let shown = flags.iter().copied().filter(|flag| !flag.hidden);
    for flag in shown.chain([&HELP]) {
        entry(text, &names(flag), flag.help);
    }
}

/// `--bundle DIR, -b DIR`.
pub(super) fn names(flag: &Flag) -> String {
    let mut text = format!("--{}", flag.name);
    let word = flag.word();
    if let Some(word) = word {
        text.push(' ');
        text.push_str(word);
    }
    if let Some(short) = flag.short {
        text.push_str(", -");
        text.push(short);
        if let Some(word) = word {
            text.push(' ');
            text.push_str(word);
        }
    }
    if matches!(flag.kind, Kind::List(_)) {
        text.push_str(" ...");
    }
    text
}

/// One line of a list, its help folded at the right margin.
fn entry(text: &mut String, name: &str, help: &str) {
    text.push_str("   ");
    text.push_str(name);
    let mut column = 3 + name.chars().count();
    if column + 2 > HELP_COLUMN {
        text.push('\n');
        column = 0;
    }
    for (index, word) in help.split_whitespace().enumerate() {
        if index > 0 && column + 1 + word.chars().count() > LINE_CHARS_MAX {
            text.push('\n');
            column = 0;
        }
        let gap = HELP_COLUMN.saturating_sub(column).max(1);
        text.extend(std::iter::repeat_n(' ', gap));
        text.push_str(word);
        column += gap + word.chars().count();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_every_name_and_folds_long_sentences() {
        static LONG: Flag = Flag::list(
            "environment-of-the-process",
            "NAME=VALUE",
            "one two three four five six seven eight nine ten eleven twelve thirteen fourteen \
             fifteen sixteen",
        )
        .short('e');
        let mut text = String::new();
        options(&mut text, &[&LONG]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines.first(),
            Some(&"   --environment-of-the-process NAME=VALUE, -e NAME=VALUE ...")
        );
        assert!(lines.iter().all(|line| line.len() <= LINE_CHARS_MAX));
        assert_eq!(lines.len(), 4, "{text}");
        assert!(text.contains("--help, -h"));
    }

    #[test]
    fn hidden_flags_stay_hidden() {
        static OLD: Flag = Flag::text("criu", "PATH", "").hidden();
        let mut text = String::new();
        options(&mut text, &[&OLD]);
        assert!(!text.contains("criu"));
    }
}
