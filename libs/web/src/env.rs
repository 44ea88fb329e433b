//! Configuration from the environment: a wrong value stops the start with one line that says what is right.

use std::{fmt, str::FromStr, sync::Arc};

/// Where configuration is read: the process environment, or in tests any function of a name.
///
/// A variable that is set but empty counts as unset: compose files write `X=${X:-}`.
///
/// ```
/// let env = web::Env::from(|name| (name == "PORT").then(|| "30000000".to_owned()));
/// let error = env.or("PORT", 3000_u16, "a port number from 1 to 65535").unwrap_err();
/// assert_eq!(error.to_string(), r#"PORT is "30000000"; it must be a port number from 1 to 65535"#);
/// ```
#[derive(Clone)]
pub struct Env(Arc<Source>);

/// What is said of a secret's value.
const NOT_SHOWN: &str = "set to something else (not shown)";

type Source = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A variable that is missing or wrong, in one line. A secret's value is never part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {held}; it must be {right}")]
pub struct Invalid {
    name: String,
    held: String,
    right: String,
}

impl Invalid {
    /// A secret that can be read and is wrong all the same, beside what else is set; `right` completes "it must be …".
    pub fn secret(name: &str, right: &str) -> Self {
        Self { name: name.into(), held: NOT_SHOWN.into(), right: right.into() }
    }
}

impl Env {
    /// The environment of this process. A value that is not UTF-8 counts as unset.
    pub fn process() -> Self {
        Self::from(|name| std::env::var(name).ok())
    }

    /// Another source: the value of a name.
    pub fn from(source: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The value of `name` if it is set; `right` completes "it must be …".
    pub fn optional<T: FromStr>(&self, name: &str, right: &str) -> Result<Option<T>, Invalid> {
        self.read(name).map(|text| parse(name, &text, right, format!("{text:?}"))).transpose()
    }

    /// The value of `name`, or `default` if it is not set.
    pub fn or<T: FromStr>(&self, name: &str, default: T, right: &str) -> Result<T, Invalid> {
        Ok(self.optional(name, right)?.unwrap_or(default))
    }

    /// The value of `name`, which must be set.
    pub fn required<T: FromStr>(&self, name: &str, right: &str) -> Result<T, Invalid> {
        self.optional(name, right)?.ok_or_else(|| unset(name, right))
    }

    /// Like [`optional`](Self::optional), for what no message may show.
    pub fn optional_secret<T: FromStr>(&self, name: &str, right: &str) -> Result<Option<T>, Invalid> {
        self.read(name).map(|text| parse(name, &text, right, NOT_SHOWN.into())).transpose()
    }

    /// Like [`required`](Self::required), for what no message may show.
    pub fn secret<T: FromStr>(&self, name: &str, right: &str) -> Result<T, Invalid> {
        self.optional_secret(name, right)?.ok_or_else(|| unset(name, right))
    }

    fn read(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| !text.is_empty())
    }
}

/// How `service` logs and traces, by `LOG_FORMAT`, `JAEGER_COLLECTOR_URL` and `TRACE_SAMPLE_RATIO`.
///
/// # Errors
/// With the first variable that is wrong.
pub fn telemetry_settings(env: &Env, service: &str) -> Result<telemetry::Settings, Invalid> {
    Ok(telemetry::Settings {
        service: service.to_owned(),
        log_format: env.or("LOG_FORMAT", telemetry::LogFormat::Pretty, "pretty or json")?,
        collector: env.optional(
            "JAEGER_COLLECTOR_URL",
            "the address of an OTLP collector, grpc://host:4317 or http://host:4318",
        )?,
        sample_ratio: env.or("TRACE_SAMPLE_RATIO", Ratio(1.0), "a number from 0 to 1")?.0,
    })
}

struct Ratio(f64);

impl FromStr for Ratio {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).map(Self).ok_or(())
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

fn parse<T: FromStr>(name: &str, text: &str, right: &str, held: String) -> Result<T, Invalid> {
    text.parse().map_err(|_| Invalid { name: name.into(), held, right: right.into() })
}

fn unset(name: &str, right: &str) -> Invalid {
    Invalid { name: name.into(), held: "not set".into(), right: right.into() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn holding(value: &'static str) -> Env {
        Env::from(move |name| (name == "X").then(|| value.to_owned()))
    }

    #[test]
    fn what_is_not_set_takes_the_default() {
        assert_eq!(holding("7").or("Y", 3_u16, "a number"), Ok(3));
        assert_eq!(holding("").or("X", 3_u16, "a number"), Ok(3));
        assert_eq!(holding("7").or("X", 3_u16, "a number"), Ok(7));
    }

    #[test]
    fn a_wrong_value_is_one_line_with_what_it_holds_and_what_is_right() {
        let error = holding("a\nb").optional::<NonZeroU16>("X", "a port number from 1 to 65535").unwrap_err();
        assert_eq!(error.to_string(), r#"X is "a\nb"; it must be a port number from 1 to 65535"#);
    }

    #[test]
    fn a_missing_value_is_named() {
        let error = holding("").required::<String>("X", "a NATS address").unwrap_err();
        assert_eq!(error.to_string(), "X is not set; it must be a NATS address");
    }

    #[test]
    fn a_secret_is_never_shown() {
        let error = holding("hunter2").secret::<u8>("X", "a number").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
