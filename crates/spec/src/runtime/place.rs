//! Which property of a document a parser was reading when it gave up.
//!
//! serde_json tells line and column of an error; this walks the text up to there
//! and says the same as a path. It runs only to explain a failure. A parser that
//! tracks paths as it goes would be compiled a second time for every type (an
//! eighth of a megabyte). Nothing here needs the text to be JSON.

/// Longest path in parts; deeper ones are cut off.
const PARTS_MAX: usize = 64;

enum Part {
    /// Inside an object, at this key; `true` while a key is expected.
    Key(String, bool),
    /// Inside a list, at this element.
    Element(usize),
}

/// The path of what stands before `line` and `column` (both from 1, as serde_json
/// counts): `linux.namespaces[1].type`, or `.` for the document itself.
pub(super) fn of(text: &[u8], line: usize, column: usize) -> String {
    let end = offset(text, line, column);
    let mut parts: Vec<Part> = Vec::new();
    let mut bytes = text.iter().copied().take(end);
    while let Some(byte) = bytes.next() {
        match (byte, parts.last_mut()) {
            (b'"', last) => {
                let string = string(&mut bytes);
                if let Some(Part::Key(key, expected @ true)) = last {
                    *key = string;
                    *expected = false;
                }
            }
            (b'{', _) => parts.push(Part::Key(String::new(), true)),
            (b'[', _) => parts.push(Part::Element(0)),
            (b'}' | b']', _) => drop(parts.pop()),
            (b',', Some(Part::Key(key, expected))) => {
                key.clear();
                *expected = true;
            }
            (b',', Some(Part::Element(index))) => *index += 1,
            _ => {}
        }
    }
    join(&parts)
}

fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let mut starts = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let start = match line.checked_sub(2) {
        None => 0,
        Some(skip) => starts.nth(skip).map_or(text.len(), |(at, _)| at + 1),
    };
    start.saturating_add(column)
}

/// The rest of a string, behind its opening quote.
fn string(bytes: &mut impl Iterator<Item = u8>) -> String {
    let mut raw = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => {
                raw.push(byte);
                raw.extend(bytes.next());
            }
            byte => raw.push(byte),
        }
    }
    String::from_utf8_lossy(&raw).into_owned()
}

fn join(parts: &[Part]) -> String {
    let mut path = String::new();
    for part in parts.iter().take(PARTS_MAX) {
        match part {
            Part::Key(key, _) if key.is_empty() => {}
            Part::Key(key, _) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Part::Element(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
        }
    }
    if path.is_empty() {
        path.push('.');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path at the mark `^`, which is taken out.
    fn at(marked: &str) -> String {
        let offset = marked.find('^').unwrap();
        let text = marked.replace('^', "");
        let before = &text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = offset - before.rfind('\n').map_or(0, |at| at + 1);
        of(text.as_bytes(), line, column)
    }

    #[test]
    fn names_the_value_that_was_being_read() {
        for (marked, path) in [
            ("^", "."),
            ("{^}", "."),
            (r#"{"a":1^}"#, "a"),
            (r#"{"a":{"b":"x"^}}"#, "a.b"),
            (r#"{"a":[{"b":1},{"c":tru^e}]}"#, "a[1].c"),
            (r#"{"a":[{"b":1},{"c":2}^]}"#, "a[1]"),
            (r#"{"a":[1,2],"b"^:3}"#, "b"),
            (r#"{"a":1,^"b":3}"#, "."),
            ("{\n \"a\": {\n  \"b\": 7^\n }}", "a.b"),
            (r#"{"a\"]":1^}"#, r#"a\"]"#),
            (r#"{"a":"}],"^}"#, "a"),
            (r#"]}],^"#, "."),
        ] {
            assert_eq!(at(marked), path, "{marked}");
        }
    }

    #[test]
    fn any_position_and_any_bytes_give_a_path() {
        for line in [0, 1, 2, usize::MAX] {
            for column in [0, 1, 5, usize::MAX] {
                of(b"{\"a\xff\n\":[\\", line, column);
            }
        }
        assert!(of(&[b'['; 100_000], 1, 100_000).len() < 10 * PARTS_MAX);
    }
}
