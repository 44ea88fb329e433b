//! What an audit says: to people as text, to programs as one JSON document.

use std::{collections::BTreeMap, fmt::Write};

use contract::Timestamp;
use serde::Serialize;

use super::finding::{Code, Finding, KEPT, Note};

/// How many findings of one kind are told to people.
const SHOWN: usize = 20;

/// The whole of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// When the ends of the streams were asked for: what came later is not judged.
    pub(crate) as_of: Timestamp,
    /// How long what has to follow from an event may take.
    pub(crate) grace_seconds: u64,
    /// What was read.
    pub(crate) streams: Vec<StreamRead>,
    /// How many of Stripe's intents were compared with, if they were.
    pub(crate) stripe_intents: Option<usize>,
    /// Whether nothing is wrong.
    pub(crate) sound: bool,
    /// What is wrong, by stream and sequence: of each code so many at most.
    pub(crate) findings: Vec<Finding>,
    /// How many more there are.
    pub(crate) findings_left_out: u64,
    /// How many there are of each code, told or left out.
    #[serde(skip)]
    pub(crate) counts: BTreeMap<Code, u64>,
    /// What somebody should know.
    pub(crate) notes: Vec<Note>,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// A stream that was read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamRead {
    pub(crate) stream: &'static str,
    /// How many messages there were.
    pub(crate) messages: u64,
    /// The sequence of the last one, as of which it is judged.
    pub(crate) as_of_sequence: u64,
}

impl Report {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("as of {}, with {} s of grace\n\n", self.as_of, self.grace_seconds);
        for StreamRead { stream, messages, as_of_sequence } in &self.streams {
            let _ = writeln!(text, "  {stream:<12} {messages:>9} messages, judged up to {as_of_sequence}");
        }
        if let Some(intents) = self.stripe_intents {
            let _ = writeln!(text, "  {:<12} {intents:>9} intents", "STRIPE");
        }
        for Note { stream, text: note } in self.notes.iter().take(SHOWN) {
            let _ = write!(text, "\nnote: {stream}: {note}");
        }
        if self.notes.len() > SHOWN {
            let _ = write!(text, "\nand {} more notes: --json has all", self.notes.len() - SHOWN);
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        let mut by_code: BTreeMap<Code, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            by_code.entry(finding.code).or_default().push(finding);
        }
        for (code, findings) in by_code {
            let count = self.counts.get(&code).copied().unwrap_or_default();
            let _ = write!(text, "\n{}: {count}\n", name(code));
            for Finding { stream, sequence, subject, explanation, .. } in findings.iter().take(SHOWN) {
                let sequence = sequence.map_or(String::new(), |sequence| format!(" {sequence}"));
                let _ = writeln!(text, "  {stream}{sequence}  {subject}\n      {explanation}");
            }
            let shown = findings.len().min(SHOWN) as u64;
            if count > shown {
                let _ = writeln!(text, "  and {} more: --json has up to {KEPT}", count - shown);
            }
        }
        let verdict = match self.counts.values().sum::<u64>() {
            0 => "sound: nothing is wrong".to_owned(),
            count => format!("not sound: {count} findings"),
        };
        let _ = write!(text, "\n{verdict} ({:.1} s)", self.seconds);
        text
    }
}

/// As JSON has it.
fn name(code: Code) -> String {
    let name = serde_json::to_value(code).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
