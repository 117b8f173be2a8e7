//! Foreign text in Markdown: it must not become markup, HTML or a mention.

use super::text::clean;

/// A name as code. One that code cannot hold safely in a table cell becomes escaped text.
pub(crate) fn code(name: &str) -> String {
    let name = clean(name);
    let safe = |c: char| !matches!(c, '`' | '|' | '<' | '>' | '&' | '\\');
    let bare = name.trim();
    if bare.is_empty() {
        "–".to_owned()
    } else if bare.chars().all(safe) {
        format!("`{bare}`")
    } else {
        plain(bare)
    }
}

/// Text without any markup.
pub(crate) fn plain(text: &str) -> String {
    let text: Vec<char> = clean(text).chars().collect();
    let mut out = String::with_capacity(text.len());
    for (i, &c) in text.iter().enumerate() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // A backslash does not keep GitHub from notifying people.
            '@' => out.push_str("&#64;"),
            '#' => out.push_str("&#35;"),
            '_' if !(within(&text, i)) => out.push_str("\\_"),
            '\\' | '`' | '*' | '[' | ']' | '|' | '~' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Text in which names stand between backticks.
pub(crate) fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // A backtick without a partner opens nothing.
    let paired = parts.len() - (1 - parts.len() % 2);
    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        if i >= paired {
            out.push_str("\\`");
            out.push_str(&plain(part));
        } else if i % 2 == 1 {
            out.push_str(&code(part));
        } else {
            out.push_str(&plain(part));
        }
    }
    out
}

/// Underscores inside a word mean nothing to GitHub, and names are full of them.
fn within(text: &[char], i: usize) -> bool {
    let word = |at: Option<&char>| at.is_some_and(|c| c.is_alphanumeric());
    i > 0 && word(text.get(i - 1)) && word(text.get(i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_code_and_any_other_is_escaped_text() {
        assert_eq!(code("model.layers.3.self_attn.k_rope"), "`model.layers.3.self_attn.k_rope`");
        assert_eq!(code("a|`<b>\n"), "a\\|\\`&lt;b&gt;");
        assert_eq!(code(""), "–");
    }

    #[test]
    fn prose_keeps_its_code_and_nothing_else() {
        assert_eq!(prose("see `a_b` and *c* @d"), "see `a_b` and \\*c\\* &#64;d");
        assert_eq!(prose("an `open"), "an \\`open");
        assert_eq!(prose("`x` then ` alone"), "`x` then \\` alone");
        assert_eq!(prose("`<script>`"), "&lt;script&gt;");
        assert_eq!(prose("self_attn _em_"), "self_attn \\_em\\_");
    }
}
