//! Numbers in JSON that may be NaN or infinite, and in words.
//!
//! JSON has no such numbers and a `null` would lose them: they are written as the strings
//! `"NaN"`, `"inf"` and `"-inf"`. All others are JSON numbers.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How many: `1 point`, `2 points`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f64),
    Text(String),
}

/// Writes one number.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    encode(*value).serialize(serializer)
}

/// Reads one number.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    decode(Number::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn encode(value: f64) -> Number {
    if value.is_finite() { Number::Finite(value) } else { Number::Text(value.to_string()) }
}

fn decode(number: Number) -> Result<f64, String> {
    match number {
        Number::Finite(value) => Ok(value),
        Number::Text(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(format!("expected a number, \"NaN\", \"inf\" or \"-inf\", got {text:?}")),
        },
    }
}

/// The same for an optional number.
pub mod option {
    use super::{Deserialize, Deserializer, Number, Serialize, Serializer, decode, encode};
    use serde::de::Error as _;

    /// Writes one number or null.
    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(encode).serialize(serializer)
    }

    /// Reads one number or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Option::<Number>::deserialize(deserializer)?.map(decode).transpose().map_err(D::Error::custom)
    }
}

/// The same for a list of numbers.
pub mod list {
    use super::{Deserialize, Deserializer, Number, Serializer, decode, encode};
    use serde::de::Error as _;

    /// Writes the numbers.
    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|v| encode(*v)))
    }

    /// Reads the numbers: all that there are, or as many as an array has.
    pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<f64>>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let numbers = Vec::<Number>::deserialize(deserializer)?;
        let numbers: Vec<f64> =
            numbers.into_iter().map(decode).collect::<Result<_, _>>().map_err(D::Error::custom)?;
        let got = numbers.len();
        T::try_from(numbers).map_err(|_| D::Error::custom(format!("another number of numbers than {got}")))
    }
}

/// The same for a list of numbers of which some are not known: those are null.
pub mod options {
    use super::{Deserialize, Deserializer, Number, Serializer, decode, encode};
    use serde::de::Error as _;

    /// Writes the numbers and nulls.
    pub fn serialize<S: Serializer>(values: &[Option<f64>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|v| v.map(encode)))
    }

    /// Reads the numbers and nulls.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Option<f64>>, D::Error> {
        let numbers = Vec::<Option<Number>>::deserialize(deserializer)?.into_iter();
        let decoded = numbers.map(|number| number.map(decode).transpose());
        decoded.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

/// The same for numbers by name.
pub mod map {
    use super::{Deserialize, Deserializer, Number, Serializer, decode, encode};
    use serde::de::Error as _;
    use std::collections::BTreeMap;

    /// Writes the numbers.
    pub fn serialize<S: Serializer>(
        values: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(values.iter().map(|(name, v)| (name, encode(*v))))
    }

    /// Reads the numbers.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let numbers = BTreeMap::<String, Number>::deserialize(deserializer)?;
        let decoded = numbers.into_iter().map(|(name, n)| Ok((name, decode(n)?)));
        decoded.collect::<Result<_, String>>().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Four {
        #[serde(with = "super")]
        one: f64,
        #[serde(with = "super::option")]
        maybe: Option<f64>,
        #[serde(with = "super::list")]
        many: Vec<f64>,
        #[serde(with = "super::options")]
        some: Vec<Option<f64>>,
    }

    #[test]
    fn non_finite_numbers_survive_json() {
        let value = Four {
            one: f64::NAN,
            maybe: Some(f64::NEG_INFINITY),
            many: vec![1.5, f64::INFINITY],
            some: vec![None, Some(0.0), Some(f64::INFINITY)],
        };
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(text, r#"{"one":"NaN","maybe":"-inf","many":[1.5,"inf"],"some":[null,0.0,"inf"]}"#);
        let back: Four = serde_json::from_str(&text).unwrap();
        assert!(back.one.is_nan() && back.maybe == Some(f64::NEG_INFINITY) && back.many[1] == f64::INFINITY);
        assert!(serde_json::from_str::<Four>(r#"{"one":"no","maybe":null,"many":[],"some":[]}"#).is_err());
    }
}
