//! `--format`: `json`, or text with fields in docker's form. Pure.
//!
//! Known are `{{.Field}}`, `{{.Field.Inner}}`, `{{.}}`, `{{json .Field}}`, `{{upper .Field}}`, `{{lower .Field}}`,
//! `{{len .Field}}`, `{{index .Field "key"}}` (a number for a list), `{{println …}}`, the escapes `\t` and `\n`, and
//! `table` before it, which aligns columns under a heading.

use anyhow::{Result, bail};
use serde_json::Value;

/// A parsed `--format`.
#[derive(Debug)]
pub enum Template {
    /// One JSON document.
    Json,
    /// Text with fields.
    Text { table: bool, parts: Vec<Part> },
}

/// A piece of a template.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// A field.
    Field {
        function: Function,
        path: Vec<String>,
        key: Option<String>,
    },
}

/// What is done with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Plain,
    Json,
    Upper,
    Lower,
    Len,
    Index,
    Println,
}

impl Template {
    /// Parses what stands behind `--format`.
    ///
    /// # Errors
    /// Names what is not known.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let (table, text) = match text.strip_prefix("table") {
            Some(rest) if rest.starts_with([' ', '\t', '\\']) => (true, rest.trim_start()),
            _ => (false, text),
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inside, after)) = after.split_once("}}") else {
                bail!("the template has a {{{{ without a }}}}");
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(field(inside)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self::Text { table, parts })
    }

    /// The text of one thing.
    ///
    /// # Errors
    /// Names a field that the thing does not have, and those that it has.
    pub fn render(&self, value: &Value) -> Result<String> {
        let Self::Text { parts, .. } = self else {
            return Ok(serde_json::to_string(value)?);
        };
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(words) => text.push_str(words),
                Part::Field {
                    function,
                    path,
                    key,
                } => text.push_str(&shown(*function, look(value, path)?, key.as_deref())?),
            }
        }
        Ok(text)
    }

    /// The heading of a table.
    fn heading(&self) -> String {
        let Self::Text { parts, .. } = self else {
            return String::new();
        };
        let words = parts.iter().map(|part| match part {
            Part::Text(words) => words.clone(),
            Part::Field { path, .. } => heading(path.last().map_or("", String::as_str)),
        });
        words.collect()
    }

    /// Prints things: a line each, a table, or JSON documents.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn print(&self, things: &[Value]) -> Result<()> {
        let lines = things.iter().map(|thing| self.render(thing));
        let lines: Vec<String> = lines.collect::<Result<_>>()?;
        if let Self::Text { table: true, .. } = self {
            let heading = self.heading();
            let heading: Vec<&str> = heading.split('\t').collect();
            let rows: Vec<Vec<String>> = lines
                .iter()
                .map(|line| line.split('\t').map(str::to_owned).collect())
                .collect();
            crate::table::print(&heading, &rows);
            return Ok(());
        }
        for line in lines {
            // A closed pipe ends nothing.
            let _ =
                std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes());
        }
        Ok(())
    }
}

fn field(inside: &str) -> Result<Part> {
    let inside = inside.trim().trim_matches('-').trim();
    let (function, rest) = match inside.split_once(char::is_whitespace) {
        None => (Function::Plain, inside),
        Some((name, rest)) => {
            let function = match name {
                "json" => Function::Json,
                "upper" => Function::Upper,
                "lower" => Function::Lower,
                "len" => Function::Len,
                "index" => Function::Index,
                "println" => Function::Println,
                other => bail!(
                    "the template function {other:?} is not known; there are json, upper, lower, len, index, println"
                ),
            };
            (function, rest.trim())
        }
    };
    let (path, key) = match (function, rest.split_once(char::is_whitespace)) {
        (Function::Index, Some((path, key))) => {
            (path, Some(key.trim().trim_matches('"').to_owned()))
        }
        (Function::Index, None) => bail!("index needs a field and a key"),
        _ => (rest, None),
    };
    let Some(path) = path.strip_prefix('.') else {
        bail!("{inside:?} in the template is no field; fields begin with a dot");
    };
    let path = path.split('.').filter(|name| !name.is_empty());
    Ok(Part::Field {
        function,
        path: path.map(str::to_owned).collect(),
        key,
    })
}

fn look<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value> {
    let mut at = value;
    for name in path {
        // Labels and the like are data: what is not there is empty. A record's fields are fixed.
        let Some(next) = at.get(name) else {
            if std::ptr::eq(at, value) {
                let fields: Vec<&str> = value
                    .as_object()
                    .into_iter()
                    .flat_map(|o| o.keys().map(String::as_str))
                    .collect();
                bail!(
                    "there is no field {name:?}; there are {}",
                    fields.join(", ")
                );
            }
            return Ok(&Value::Null);
        };
        at = next;
    }
    Ok(at)
}

fn shown(function: Function, value: &Value, key: Option<&str>) -> Result<String> {
    Ok(match function {
        Function::Json => serde_json::to_string(value)?,
        Function::Plain => plain(value),
        Function::Println => plain(value) + "\n",
        Function::Upper => plain(value).to_uppercase(),
        Function::Lower => plain(value).to_lowercase(),
        Function::Len => match value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
        .to_string(),
        Function::Index => {
            let key = key.unwrap_or_default();
            let found = match value {
                Value::Array(list) => key.parse::<usize>().ok().and_then(|n| list.get(n)),
                other => other.get(key),
            };
            found.map(plain).unwrap_or_default()
        }
    })
}

/// As Go prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let words: Vec<String> = list.iter().map(plain).collect();
            format!("[{}]", words.join(" "))
        }
        Value::Object(map) => {
            let words: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}:{}", plain(v)))
                .collect();
            format!("map[{}]", words.join(" "))
        }
        other => other.to_string(),
    }
}

/// `CreatedSince` as `CREATED SINCE`.
fn heading(name: &str) -> String {
    let mut text = String::new();
    let mut before_is_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && before_is_lower {
            text.push(' ');
        }
        before_is_lower = c.is_lowercase();
        text.extend(c.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_put_in() {
        let thing =
            json!({"ID": "abc", "Size": 5, "Names": ["a", "b"], "Config": {"Labels": {"k": "v"}}});
        for (format, text) in [
            ("{{.ID}}", "abc"),
            ("{{ .ID }}\\t{{.Size}}", "abc\t5"),
            ("x{{.Names}}y", "x[a b]y"),
            ("{{json .Names}}", r#"["a","b"]"#),
            ("{{.Config.Labels.k}}/{{.Config.Labels.z}}", "v/"),
            ("{{index .Config.Labels \"k\"}} {{index .Names 1}}", "v b"),
            ("{{upper .ID}}{{len .Names}}", "ABC2"),
            ("{{.Config}}", "map[Labels:map[k:v]]"),
            ("plain", "plain"),
        ] {
            let rendered = Template::parse(format).unwrap().render(&thing).unwrap();
            assert_eq!(rendered, text, "{format}");
        }
        let whole = Template::parse("{{json .}}")
            .unwrap()
            .render(&thing)
            .unwrap();
        assert_eq!(
            whole,
            Template::parse("json").unwrap().render(&thing).unwrap()
        );
        let table = Template::parse("table {{.ID}}\\t{{.CreatedSince}}").unwrap();
        assert_eq!(table.heading(), "ID\tCREATED SINCE");
    }

    #[test]
    fn mistakes_are_named() {
        let thing = json!({"ID": 1});
        let error = Template::parse("{{.Id}}")
            .unwrap()
            .render(&thing)
            .unwrap_err();
        assert!(error.to_string().contains("there are ID"), "{error}");
        for bad in ["{{.ID", "{{ID}}", "{{range .X}}", "{{index .X}}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
