//! Form parameters with nested keys: `metadata[order_id]=7`.

use std::collections::BTreeMap;

use super::refusal::Refusal;

/// The parameters of one request, sorted by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads `application/x-www-form-urlencoded`, of a body or a query. As with Stripe, empty is absent, except
    /// in metadata, where it takes a key away. The elements of a list, `expand[]`, are numbered: `expand[0]`.
    pub(super) fn parse(form: &[u8]) -> Self {
        let mut params = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(form) {
            if value.is_empty() && !key.starts_with("metadata") {
                continue;
            }
            let key = match key.strip_suffix("[]") {
                Some(list) => {
                    let numbers = (0..).map(|number| format!("{list}[{number}]"));
                    numbers.into_iter().find(|key| !params.contains_key(key)).unwrap_or_default()
                }
                None => key.into_owned(),
            };
            params.insert(key, value.into_owned());
        }
        Self(params)
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

    /// The elements of a list.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.within(key).0.into_values().collect()
    }

    /// The metadata of something new.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        let given = self.within("metadata").0;
        given.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
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
    fn a_list_keeps_all_its_elements() {
        let params = Params::parse(b"expand[]=a&expand[]=b&types[0]=c");
        assert_eq!(params.list("expand"), ["a", "b"]);
        assert_eq!(params.list("types"), ["c"]);
    }

    #[test]
    fn the_order_of_parameters_does_not_matter() {
        let (a, b) = (Params::parse(b"a=1&b[c]=2"), Params::parse(b"b[c]=2&a=1"));
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_ne!(a.fingerprint(), Params::parse(b"a=1&b[c]=3").fingerprint());
    }
}
