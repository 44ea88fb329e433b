//! A stand-in for something outside, by itself: for a service on its own, or a client at work.

use std::{net::Ipv4Addr, path::PathBuf};

use clap::Args;
use sandbox::stripe::{Delivery, StripeOptions, StripeSandbox, WebhookEndpoint};
use svc_payments::config::Secret;
use tokio_util::sync::CancellationToken;

use crate::say;

/// How a Stripe sandbox is to be.
#[derive(Args)]
pub(crate) struct Stripe {
    /// The port where it listens; 0 is a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The address where it listens; 0.0.0.0 lets other machines in, and it believes everybody
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    listen: Ipv4Addr,
    /// Where a customer's browser finds it, http://host:port, if that is not where it listens
    #[arg(long, value_parser = plain_http)]
    public_url: Option<String>,
    /// Where its books are kept over a restart; without it, in memory alone
    #[arg(long)]
    file: Option<PathBuf>,
    /// Where its events are sent, http://…/api/payments/webhook
    #[arg(long, requires = "webhook_secret", value_parser = plain_http)]
    webhook_url: Option<String>,
    /// What they are signed with, whsec_…
    #[arg(long, requires = "webhook_url", value_parser = signing_secret)]
    webhook_secret: Option<String>,
}

impl Stripe {
    /// Runs it until `shutdown`.
    ///
    /// # Errors
    /// When the port or the file cannot be had.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let webhook = self.webhook_url.zip(self.webhook_secret);
        let webhook =
            webhook.map(|(url, secret)| WebhookEndpoint { url, secret, delivery: Delivery::default() });
        let told = webhook.as_ref().map(|webhook| webhook.url.clone());
        let options = StripeOptions {
            listen: Some(self.listen),
            port: Some(self.port),
            public_url: self.public_url,
            file: self.file.clone(),
            webhooks: webhook.into_iter().collect(),
        };
        let sandbox = StripeSandbox::start(options).await?;
        say(&summary(sandbox.url(), self.file, told));
        shutdown.cancelled().await;
        sandbox.shutdown().await;
        Ok(())
    }
}

/// What a person needs to know to use it.
fn summary(url: &str, file: Option<PathBuf>, told: Option<String>) -> String {
    let books = file.map_or("in memory".to_owned(), |file| file.display().to_string());
    let told = told.unwrap_or_else(|| "to nobody: POST /_sandbox/webhook_endpoints adds somebody".to_owned());
    let lines = [
        ("a service", format!("STRIPE_KEY=sk_test_sandbox STRIPE_API_BASE={url}")),
        ("cards", "pm_card_visa pays, pm_card_chargeDeclined does not".to_owned()),
        ("", "pm_card_authenticationRequired asks its owner, pm_card_createDispute is disputed".to_owned()),
        ("books", books),
        ("events", told),
        ("by hand", "GET /_sandbox/ledger, who paid; POST /_sandbox/faults, what is to go wrong".to_owned()),
    ];
    let lines = lines.map(|(name, text)| format!("  {name:14}  {text}"));
    format!("ready: {url}\n{}", lines.join("\n"))
}

/// The sandbox has no TLS.
fn plain_http(text: &str) -> Result<String, &'static str> {
    match text.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ => Err("it must be an http address"),
    }
}

fn signing_secret(text: &str) -> Result<String, &'static str> {
    match text.parse::<Secret>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("it must begin with whsec_"),
    }
}
