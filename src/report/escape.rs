//! Foreign text in Markdown: it must not become markup, HTML or a mention.

use super::text::clean;

/// An empty comment: it ends what GitHub would take for a mention, a reference or a link, and is not shown. An
/// entity would not do, since GitHub looks for them when entities are signs again.
const NOTHING: &str = "<!---->";

/// A name as code. One that a code span cannot hold safely in a table cell becomes escaped text in a code element.
pub(crate) fn code(name: &str) -> String {
    let name = clean(name);
    let safe = |c: char| !matches!(c, '`' | '|' | '<' | '>' | '&' | '\\');
    let bare = name.trim();
    if bare.is_empty() {
        "–".to_owned()
    } else if bare.chars().all(safe) {
        format!("`{bare}`")
    } else {
        format!("<code>{}</code>", plain(bare))
    }
}

/// Text without any markup, at the start of a line too: a sign or a number there could begin a list, spaces a
/// block of code.
pub(crate) fn plain(text: &str) -> String {
    let cleaned = clean(text);
    let text = cleaned.trim_start();
    let (number, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let opens = if number.is_empty() {
        rest.starts_with(['-', '+', '='])
    } else {
        let after = rest.strip_prefix(['.', ')']);
        after.is_some_and(|after| after.is_empty() || after.starts_with(' '))
    };
    format!("{number}{}{}", if opens { "\\" } else { "" }, escaped(rest))
}

/// Text without any markup, inside a line.
fn escaped(text: &str) -> String {
    let text: Vec<char> = clean(text).chars().collect();
    let mut out = String::with_capacity(text.len());
    for (i, &c) in text.iter().enumerate() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' | '#' => out.extend([c.encode_utf8(&mut [0; 4]), NOTHING]),
            // An address would become a link.
            ':' if text[i + 1..].starts_with(&['/', '/']) => out.extend([":", NOTHING]),
            '.' if i >= 3 && text[i - 3..i].iter().all(|c| c.eq_ignore_ascii_case(&'w')) => {
                out.extend([NOTHING, "."]);
            }
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

/// Text inside an HTML element of which Markdown reads nothing, such as a summary.
pub(crate) fn html_text(text: &str) -> String {
    clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
            out.push_str(&escaped(part));
        } else if i % 2 == 1 {
            out.push_str(&code(part));
        } else if i == 0 {
            out.push_str(&plain(part));
        } else {
            out.push_str(&escaped(part));
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
        assert_eq!(code("a|`<b>\n"), "<code>a\\|\\`&lt;b&gt;</code>");
        assert_eq!(code(""), "–");
    }

    #[test]
    fn prose_keeps_its_code_and_nothing_else() {
        assert_eq!(prose("see `a_b` and *c* @d"), "see `a_b` and \\*c\\* @<!---->d");
        assert_eq!(prose("an `open"), "an \\`open");
        assert_eq!(prose("`x` then ` alone"), "`x` then \\` alone");
        assert_eq!(prose("`<script>`"), "<code>&lt;script&gt;</code>");
        assert_eq!(prose("self_attn _em_"), "self_attn \\_em\\_");
        assert_eq!(prose("a `b` - c"), "a `b` - c");
    }

    #[test]
    fn what_a_line_starts_with_makes_it_no_list_and_an_address_no_link() {
        assert_eq!(plain("- a"), "\\- a");
        assert_eq!(plain("12. a 1.5"), "12\\. a 1.5");
        assert_eq!(plain("    # a #1"), "#<!----> a #<!---->1");
        assert_eq!(plain("http://a www.b"), "http:<!---->//a www<!---->.b");
        assert_eq!(html_text("<b> & @c"), "&lt;b&gt; &amp; @c");
    }
}
