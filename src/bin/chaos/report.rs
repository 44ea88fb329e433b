//! What a run was: a table for people, and one line of JSON for programs.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use crate::judge::{Kept, Money};

/// How many findings people are told.
const SHOWN: usize = 20;

/// The whole of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// How long there were faults.
    pub(crate) seconds: u64,
    /// How many there were of each kind.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Those that this machine cannot have, and why.
    pub(crate) skipped: BTreeMap<&'static str, String>,
    /// How many requests to Stripe met one of its faults.
    pub(crate) stripe_faults_met: u64,
    /// How often each route was answered with which status; 0 stands for no answer.
    pub(crate) answers: BTreeMap<&'static str, BTreeMap<u16, u64>>,
    pub(crate) promises: BTreeMap<&'static str, Kept>,
    /// How many events each stream has.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// How orders ended.
    pub(crate) orders: BTreeMap<String, u64>,
    pub(crate) money: Money,
    /// How far the times that events bear are behind the server's and ahead of it, in seconds: clocks, and waiting.
    pub(crate) clocks: (f64, f64),
    /// How many answers of replicas were compared with each other.
    pub(crate) compared: usize,
    /// How long it took, after the last fault, until nothing was left to be done.
    pub(crate) settled_seconds: f64,
    pub(crate) sound: bool,
    pub(crate) findings: Vec<String>,
}

impl Report {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\nseed {}, {} s of faults\n", self.seed, self.seconds);
        text += "\nfaults\n";
        for (kind, count) in &self.faults {
            let _ = writeln!(text, "  {kind:<32} {count:>8}");
        }
        for (kind, why) in &self.skipped {
            let _ = writeln!(text, "  {kind:<32}  skipped: {why}");
        }
        let _ = writeln!(text, "  {:<32} {:>8}", "met by requests to stripe", self.stripe_faults_met);
        text += "\nanswers\n";
        for (route, statuses) in &self.answers {
            let statuses = statuses.iter().map(|(status, count)| match status {
                0 => format!("{count} × none"),
                _ => format!("{count} × {status}"),
            });
            let _ = writeln!(text, "  {route:<32} {}", statuses.collect::<Vec<_>>().join(", "));
        }
        text += "\npromises\n";
        for (name, Kept { noted, kept }) in &self.promises {
            let _ = writeln!(text, "  {name:<32} {noted:>8}, kept {kept}");
        }
        text += "\nthe log\n";
        for (stream, events) in &self.events {
            let _ = writeln!(text, "  {stream:<32} {events:>8}");
        }
        for (end, count) in &self.orders {
            let _ = writeln!(text, "  {end:<32} {count:>8}");
        }
        let (behind, ahead) = self.clocks;
        let _ = writeln!(text, "  times from {behind:+.1} s to {ahead:+.1} s off the server's");
        let Money { intents, captured, refunded } = self.money;
        let _ = writeln!(text, "\nstripe: {intents} intents, {captured} cents taken, {refunded} given back");
        let _ = writeln!(text, "replicas: {} answers compared", self.compared);
        let _ = writeln!(text, "settled {:.1} s after the last fault", self.settled_seconds);
        for finding in self.findings.iter().take(SHOWN) {
            let _ = writeln!(text, "\nwrong: {finding}");
        }
        if self.findings.len() > SHOWN {
            let _ = writeln!(text, "\nand {} more", self.findings.len() - SHOWN);
        }
        let verdict = match self.findings.len() {
            0 => "sound: the audit, the ledger and the notes agree".to_owned(),
            count => format!("not sound: {count} findings"),
        };
        let _ = write!(text, "\n{verdict}");
        text
    }
}
