//! Form parameters with nested keys: `metadata[order_id]=7`.

use std::collections::BTreeMap;

use super::refusal::Refusal;

/// The parameters of one request, sorted by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads `application/x-www-form-urlencoded`, of a body or a query. As with Stripe, empty is absent.
    pub(super) fn parse(form: &[u8]) -> Self {
        Self(
            form_urlencoded::parse(form)
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }

    pub(super) fn required(&self, key: &str) -> Result<&str, Refusal> {
        self.get(key).ok_or_else(|| Refusal::missing(key))
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, Refusal> {
        self.get(key).map(|text| text.parse().map_err(|_| Refusal::not_an_integer(key, text))).transpose()
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.get(key) == Some("true")
    }

    /// What is nested under `key`, one level up: `card[token]` for `payment_method_data[card][token]`.
    pub(super) fn within(&self, key: &str) -> Self {
        let nested = self.0.iter().filter_map(|(name, value)| {
            let (inner, rest) = name.strip_prefix(key)?.strip_prefix('[')?.split_once(']')?;
            Some((format!("{inner}{rest}"), value.clone()))
        });
        Self(nested.collect())
    }

    pub(super) fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    /// The same for the same parameters in whatever order.
    pub(super) fn fingerprint(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_keys_are_read_level_by_level() {
        let params = Params::parse(b"payment_method_data%5Bcard%5D%5Btoken%5D=tok_visa&amount=1&x=");
        let data = params.within("payment_method_data");
        assert_eq!(data.get("card[token]"), Some("tok_visa"));
        assert_eq!(data.within("card").get("token"), Some("tok_visa"));
        assert_eq!(params.get("x"), None);
    }

    #[test]
    fn the_order_of_parameters_does_not_matter() {
        let (a, b) = (Params::parse(b"a=1&b[c]=2"), Params::parse(b"b[c]=2&a=1"));
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_ne!(a.fingerprint(), Params::parse(b"a=1&b[c]=3").fingerprint());
    }
}
