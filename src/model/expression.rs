//! Sizes as expressions over a model's configuration: `num_attention_heads * head_dim`.

use crate::error::{Error, Result};

/// Evaluates `text`: numbers and names joined by `+ - * /`, with the usual precedence.
///
/// `lookup` gives a name's value. The result of a division may be fractional; callers that want
/// a size check that it is whole.
pub fn evaluate(text: &str, lookup: &dyn Fn(&str) -> Result<f64>) -> Result<f64> {
    let mut sum = 0.0;
    let mut product = f64::NAN;
    let mut sign = 1.0;
    let mut operator = None;
    for token in text.split_whitespace() {
        match (operator, token) {
            (Some(_), "+" | "-" | "*" | "/") | (None, "*" | "/")
                if operator.is_some() || product.is_nan() =>
            {
                return Err(malformed(text, token));
            }
            (None, "+" | "-") if !product.is_nan() => {
                sum += sign * product;
                sign = if token == "+" { 1.0 } else { -1.0 };
                operator = Some("start");
            }
            (None, "*" | "/") => operator = Some(token),
            (None, _) if !product.is_nan() => return Err(malformed(text, token)),
            (_, token) => {
                let value = match token.parse::<f64>() {
                    Ok(number) => number,
                    Err(_) => lookup(token)?,
                };
                product = match operator {
                    Some("*") => product * value,
                    Some("/") => product / value,
                    _ => value,
                };
                operator = None;
            }
        }
    }
    if operator.is_some() || product.is_nan() {
        return Err(malformed(text, "the end"));
    }
    Ok(sum + sign * product)
}

fn malformed(text: &str, token: &str) -> Error {
    Error::new(format!("malformed expression `{text}` at `{token}`"))
        .hint("an expression is numbers and configuration keys joined by ` + `, ` - `, ` * ` or ` / `")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<f64> {
        evaluate(text, &|name| match name {
            "a" => Ok(3.0),
            "b.c" => Ok(0.25),
            _ => Err(Error::new(format!("no {name}"))),
        })
    }

    #[test]
    fn products_bind_tighter_than_sums() {
        assert_eq!(value("2 * a + a * 4"), Ok(18.0));
        assert_eq!(value("a - 1"), Ok(2.0));
        assert_eq!(value("64 * b.c / 2"), Ok(8.0));
        assert_eq!(value("10 - 2 * a - 1"), Ok(3.0));
        assert_eq!(value("7"), Ok(7.0));
    }

    #[test]
    fn an_unknown_name_and_a_malformed_text_are_errors() {
        for text in ["x", "", "a *", "* a", "a a", "a + * a", "+"] {
            assert!(value(text).is_err(), "{text}");
        }
    }
}
