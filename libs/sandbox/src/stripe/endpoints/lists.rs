//! Lists and searches, page by page.

use serde_json::{Value, json};

use crate::stripe::books::{Books, Dated, Intent, Table};
use crate::stripe::params::Params;
use crate::stripe::refusal::Refusal;
use crate::stripe::shapes;

fn limit(params: &Params) -> Result<usize, Refusal> {
    let limit = params.integer("limit")?.unwrap_or(10);
    if limit < 1 {
        return Err(Refusal::too_small("limit", 1));
    }
    Ok(usize::try_from(limit.min(100)).unwrap_or(100))
}

/// A page of a table, newest first: `limit`, `starting_after`, `created`.
pub(super) fn page<T: Dated>(
    table: &Table<T>,
    what: &str,
    params: &Params,
    wanted: impl Fn(&T) -> bool,
    body: impl Fn(&T) -> Value,
) -> Result<Value, Refusal> {
    let limit = limit(params)?;
    let created = params.within("created");
    let (exactly, after, from, before, until) = (
        params.integer("created")?,
        created.integer("gt")?,
        created.integer("gte")?,
        created.integer("lt")?,
        created.integer("lte")?,
    );
    let within = |row: &&T| {
        let at = row.created();
        exactly.is_none_or(|time| at == time)
            && after.is_none_or(|time| at > time)
            && from.is_none_or(|time| at >= time)
            && before.is_none_or(|time| at < time)
            && until.is_none_or(|time| at <= time)
    };
    let last = params.get("starting_after");
    if let Some(id) = last.filter(|id| table.get(id).is_none()) {
        return Err(Refusal::no_such(what, id, "starting_after"));
    }
    let mut seen = last.is_none();
    let rest = table.iter().rev().filter(|row| {
        let show = seen;
        seen |= last == Some(row.id());
        show
    });
    let mut page: Vec<Value> =
        rest.filter(within).filter(|row| wanted(row)).take(limit + 1).map(body).collect();
    let has_more = page.len() > limit;
    page.truncate(limit);
    Ok(json!({ "object": "list", "url": format!("/v1/{what}s"), "has_more": has_more, "data": page }))
}

/// `GET /v1/payment_intents/search`. What is new is found at once; Stripe may take a minute.
pub(super) fn search(books: &Books, params: &Params) -> Result<Value, Refusal> {
    let limit = limit(params)?;
    let query = params.required("query")?;
    let clauses = clauses(query).ok_or_else(|| {
        Refusal::invalid("query", format!("The sandbox knows metadata['key']:'value' and AND, not: {query}"))
    })?;
    let last = params.get("page");
    if let Some(page) = last.filter(|page| books.intents.get(page).is_none()) {
        return Err(Refusal::invalid("page", format!("Invalid page: {page}")));
    }
    let mut seen = last.is_none();
    let matches =
        |intent: &&Intent| clauses.iter().all(|(key, value)| intent.metadata.get(key) == Some(value));
    let rest = books.intents.iter().rev().filter(|intent| {
        let show = seen;
        seen |= last == Some(intent.id.as_str());
        show
    });
    let mut found: Vec<&Intent> = rest.filter(matches).take(limit + 1).collect();
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next_page = found.last().filter(|_| has_more).map(|intent| intent.id.clone());
    let data: Vec<Value> = found.into_iter().map(|intent| shapes::intent(books, intent)).collect();
    Ok(json!({
        "object": "search_result",
        "url": "/v1/payment_intents/search",
        "has_more": has_more,
        "next_page": next_page,
        "data": data,
    }))
}

/// `metadata['key']:'value' AND …`: keys and values; `None` for anything else.
fn clauses(query: &str) -> Option<Vec<(String, String)>> {
    let mut clauses = Vec::new();
    let mut rest = query.trim();
    loop {
        let (key, after) = quoted(rest.strip_prefix("metadata[")?)?;
        let (value, after) = quoted(after.strip_prefix("]:")?)?;
        clauses.push((key, value));
        rest = after.trim();
        if rest.is_empty() {
            return Some(clauses);
        }
        let (and, after) = rest.split_once(char::is_whitespace)?;
        if !and.eq_ignore_ascii_case("and") {
            return None;
        }
        rest = after.trim();
    }
}

/// What stands in quotes of either kind, with `\` before one that is meant, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut inner = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => inner.push(letters.next()?.1),
            _ if letter == quote => return Some((inner, &text[at + 1..])),
            _ => inner.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equalities_of_metadata_are_understood() {
        let pairs = |query| {
            clauses(query).map(|clauses| {
                clauses.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
            })
        };
        assert_eq!(pairs("metadata['a']:'1'"), Some(vec!["a=1".into()]));
        assert_eq!(
            pairs(r#"metadata["a"]:"it's \"1\"" AND metadata['b']:'2'"#),
            Some(vec![r#"a=it's "1""#.into(), "b=2".into()])
        );
    }

    #[test]
    fn anything_else_is_not_guessed_at() {
        for query in [
            "",
            "status:'succeeded'",
            "metadata['a']:'1' OR metadata['b']:'2'",
            "-metadata['a']:'1'",
            "metadata['a']~'1'",
            "metadata['a']:'1' AND",
            "metadata['a']:'1",
        ] {
            assert_eq!(clauses(query), None, "{query}");
        }
    }
}
