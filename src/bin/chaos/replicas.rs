//! What the replicas of a service say, which has to be the same, and what the log says.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    cast::Cast,
    load::{Market, Person},
    log::Log,
    replica::Replica,
    service::Service,
};

/// How long projections may take to show what stands in the log.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(250);
/// How many payments are looked at.
const PAYMENTS: usize = 60;

/// What the replicas of a service are asked.
struct Question<'a> {
    service: Service,
    path: String,
    by: &'a Person,
}

/// Asks each replica for everything that is listed, and for some of the rest, until all agree with each other and with the
/// log, or time is up. Returns how many answers were compared; what differs, is added to `findings`.
///
/// # Errors
/// When one of them does not answer.
pub(crate) async fn agree(
    cast: &Cast,
    market: &Market,
    log: &Log,
    findings: &mut Vec<String>,
) -> anyhow::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    let questions = questions(market, log);
    for question in &questions {
        let differs = loop {
            match compare(cast, log, question).await? {
                Some(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                differs => break differs,
            }
        };
        findings.extend(differs.map(|what| format!("{} {}: {what}", question.service, question.path)));
    }
    Ok(questions.len() * 2)
}

fn questions<'a>(market: &'a Market, log: &Log) -> Vec<Question<'a>> {
    let person = &market.people[0];
    let tickets = |query: &str| Question {
        service: Service::Tickets,
        path: format!("/api/tickets?limit=1000{query}"),
        by: person,
    };
    let mut questions = vec![tickets(""), tickets("&status=all")];
    for by in &market.people {
        for list in ["/api/orders?limit=1000", "/api/orders/sales?limit=1000"] {
            questions.push(Question { service: Service::Orders, path: list.into(), by });
        }
    }
    let paid = log.orders.iter().filter(|(_, order)| order.last == "order:completed").take(PAYMENTS);
    for (id, order) in paid {
        let by = market.people.iter().find(|person| person.id.to_string() == order.buyer);
        let path = format!("/api/payments/{id}");
        questions.extend(by.map(|by| Question { service: Service::Payments, path, by }));
    }
    questions
}

/// What is wrong with the answers, if anything is.
async fn compare(cast: &Cast, log: &Log, question: &Question<'_>) -> anyhow::Result<Option<String>> {
    let mut answers = Vec::new();
    for replica in cast.of(question.service) {
        answers.push(all_pages(cast, replica, question).await?);
    }
    let [first, second] = &answers[..] else { anyhow::bail!("there are two of each") };
    if first != second {
        let (one, other) = first.iter().zip(second).find(|(one, other)| one != other).unzip();
        let counts = (first.len(), second.len());
        return Ok(Some(format!("the replicas differ: {counts:?} rows, {one:?} and {other:?}")));
    }
    Ok(match (question.service, question.path.ends_with("status=all")) {
        (Service::Tickets, true) => tickets_unlike(log, first),
        (Service::Orders, _) if question.path.starts_with("/api/orders?") => {
            let buyer = question.by.id.to_string();
            let known = log.orders.values().filter(|order| order.buyer == buyer).count();
            (known != first.len()).then(|| format!("{} rows, and {known} orders in the log", first.len()))
        }
        _ => None,
    })
}

/// The first ticket that is shown as something else than the log says.
fn tickets_unlike(log: &Log, rows: &[Value]) -> Option<String> {
    let shown: BTreeMap<_, _> = rows.iter().map(|row| (row["id"].as_str(), row)).collect();
    let held = log.holders.iter().filter(|(ticket, order)| {
        let row = shown.get(&Some(ticket.as_str()));
        row.is_none_or(|row| row["status"] != "sold" || row["orderId"] != order.as_str())
    });
    let free = rows.iter().filter(|row| {
        let is_held = row["id"].as_str().is_some_and(|id| log.holders.contains_key(id));
        !is_held && row["status"] != "available"
    });
    let wrong = held.map(|(ticket, order)| format!("ticket {ticket} is not shown as sold to order {order}"));
    wrong.chain(free.map(|row| format!("nobody has ordered {row}"))).next()
}

/// All rows of a list; of anything else the answer itself.
async fn all_pages(cast: &Cast, replica: &Replica, question: &Question<'_>) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    let mut next = Some(question.path.clone());
    while let Some(path) = next {
        let request =
            cast.http.get(format!("{}{path}", replica.url())).bearer_auth(Market::token(question.by));
        let answer = request.send().await.with_context(|| format!("{} does not answer", question.service))?;
        let status = answer.status();
        let link = answer.headers().get("link").and_then(|link| link.to_str().ok().map(str::to_owned));
        next = link.and_then(|link| Some(link.split_once('<')?.1.split_once('>')?.0.to_owned()));
        let body: Value = answer.json().await.unwrap_or_default();
        ensure!(status.is_success(), "{} {path}: {status}: {body}", question.service);
        match body {
            Value::Array(page) => rows.extend(page),
            one => rows.push(one),
        }
    }
    Ok(rows)
}
