//! Manual pages in roff (man(7)), made from the tables. Pure.

use super::help::names;
use super::{Command, Flag, HELP};
use std::fmt::Write;

/// The page of the program, or of one command.
pub fn page(
    program: &str,
    about: &str,
    commands: &[&Command],
    globals: &[&Flag],
    command: Option<&Command>,
) -> String {
    let mut out = String::new();
    match command {
        None => program_page(&mut out, program, about, commands, globals),
        Some(command) => command_page(&mut out, program, command),
    }
    out
}

fn program_page(
    out: &mut String,
    program: &str,
    about: &str,
    commands: &[&Command],
    globals: &[&Flag],
) {
    head(out, program, "run containers by the OCI specification");
    section(out, "SYNOPSIS");
    line(out, &format!(".B {program}"));
    line(
        out,
        "[global options] \\fICOMMAND\\fR [options] [arguments]",
    );
    section(out, "DESCRIPTION");
    paragraphs(out, about);
    section(out, "COMMANDS");
    for command in commands.iter().filter(|command| !command.hidden) {
        tagged(
            out,
            &format!("{program}-{}(8)", command.name),
            command.summary,
        );
    }
    section(out, "OPTIONS");
    options(out, globals);
}

fn command_page(out: &mut String, program: &str, command: &Command) {
    head(out, &format!("{program}-{}", command.name), command.summary);
    section(out, "SYNOPSIS");
    line(out, &format!(".B {program} {}", command.name));
    line(out, &format!("[options] {}", escape(command.arguments)));
    if !command.description.is_empty() {
        section(out, "DESCRIPTION");
        paragraphs(out, command.description);
    }
    section(out, "OPTIONS");
    options(out, command.flags);
    section(out, "SEE ALSO");
    line(out, &format!(".BR {program} (8)"));
}

fn head(out: &mut String, name: &str, summary: &str) {
    let _ = writeln!(out, ".TH \"{}\" 8", name.to_uppercase());
    section(out, "NAME");
    let _ = writeln!(out, "{} \\- {}", escape(name), escape(summary));
}

fn section(out: &mut String, name: &str) {
    let _ = writeln!(out, ".SH {name}");
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn tagged(out: &mut String, tag: &str, text: &str) {
    let _ = writeln!(out, ".TP\n\\fB{}\\fR\n{}", escape(tag), escape(text));
}

fn options(out: &mut String, flags: &[&Flag]) {
    let shown = flags.iter().copied().filter(|flag| !flag.hidden);
    for flag in shown.chain([&HELP]) {
        tagged(out, &names(flag), flag.help);
    }
}

fn paragraphs(out: &mut String, text: &str) {
    for row in text.lines() {
        match row.trim() {
            "" => line(out, ".PP"),
            trimmed => line(out, &escape(trimmed)),
        }
    }
}

/// Keeps roff from reading dashes, backslashes and leading dots as its own.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_a_request() {
        assert_eq!(escape(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(escape("a-b\\n"), "a\\-b\\en");
    }
}
