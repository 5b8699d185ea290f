//! Rust source with comments and literals blanked out, so that a rule about code
//! does not trip over prose. Line breaks stay, so line numbers still hold.
//!
//! This is a lexer for tidy's needs and no more: line and nested block comments,
//! plain, byte and raw strings, and character literals as told from lifetimes.

/// `text` with the inside of every comment and literal replaced by spaces.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let length = blank_length(&chars, at);
        if length == 0 {
            out.push(c);
            at += 1;
            continue;
        }
        let end = (at + length).min(chars.len());
        out.extend(
            chars
                .iter()
                .take(end)
                .skip(at)
                .map(|c| if *c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

/// How many characters from `at` belong to a comment or literal that starts there.
fn blank_length(chars: &[char], at: usize) -> usize {
    let rest = chars.get(at..).unwrap_or_default();
    let word_before = at > 0
        && chars
            .get(at - 1)
            .is_some_and(|c| c.is_alphanumeric() || *c == '_');
    match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => string(rest),
        ['r', '"' | '#', ..] if !word_before => raw_string(rest, 1),
        ['b', 'r', '"' | '#', ..] if !word_before => raw_string(rest, 2),
        ['\'', '\\', ..] => 2 + rest.iter().skip(3).position(|c| *c == '\'').unwrap_or(0) + 2,
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match rest.get(at..at + 2) {
            Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
            Some(['*', '/']) => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while let Some(c) = rest.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[char], prefix: usize) -> usize {
    let hashes = rest.iter().skip(prefix).take_while(|c| **c == '#').count();
    if rest.get(prefix + hashes) != Some(&'"') {
        return 0; // a raw identifier such as r#type
    }
    let mut at = prefix + hashes + 1;
    while at < rest.len() {
        let closes = rest.get(at) == Some(&'"')
            && rest
                .iter()
                .skip(at + 1)
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes;
        if closes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let cases = [
            ("let a = 1; // unsafe\nb", "let a = 1;          \nb"),
            ("a /* x /* y */ \n z */ b", "a              \n      b"),
            (r#"f("un\"safe") + g"#, "f(          ) + g"),
            (r###"f(r#"a"b"#, r#type)"###, "f(        , r#type)"),
            ("let c: &'a str = 'x';", "let c: &'a str =    ;"),
            (r"match c { '\'' => '\n' }", "match c {      =>      }"),
            (r"['\u{7f}', 'b']", "[        ,    ]"),
            ("/* open", "       "),
            ("\"open", "     "),
        ];
        for (source, expected) in cases {
            assert_eq!(code_only(source), expected, "{source}");
        }
    }
}
