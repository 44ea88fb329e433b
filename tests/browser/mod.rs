//! Visitors with a real browser, who find things as people do: by what is written on them.
//!
//! That takes Chromium and its chromedriver. Where there is none, a test fails if `CI` is `true`; elsewhere it says so
//! and passes.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod alone;
pub(crate) mod axe;
pub(crate) mod caller;
pub(crate) mod tour;

use std::{env, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    ChromiumLikeCapabilities, Cookie, DesiredCapabilities, Key, LoggingPrefsLogLevel, WebDriver, WebElement,
    error::{WebDriverError, WebDriverErrorInner},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use self::caller::{Caller, PASSWORD};
use crate::{
    support::{PATIENCE, text, within},
    whole::Whole,
};

/// How long anything may take to show.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);

/// A browser is heavy: the tests of a file take turns.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What Chromium shows in place of a page when the machine's network has changed meanwhile.
const CUT_OFF: &str = "ERR_NETWORK_CHANGED";

/// Chromium by the names that it is installed under.
const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The shop, and browsers to visit it with.
pub(crate) struct Shop {
    pub(crate) browsers: Browsers,
    pub(crate) whole: Whole,
    directory: TempDir,
}

impl Shop {
    /// Opens one, whose all-in-one is told `variables`. `None`: there is no browser, and need not be.
    pub(crate) async fn open(variables: &[(&str, &str)]) -> Option<Self> {
        let browsers = Browsers::start().await?;
        let directory = TempDir::new().unwrap();
        let whole = Whole::start(directory.path(), variables).await;
        Some(Self { browsers, whole, directory })
    }

    /// Somebody comes in by the front page.
    pub(crate) async fn visitor(&self, look: Look) -> Visitor {
        let visitor = self.browsers.visitor(&self.whole.url, look).await;
        visitor.goes_to("/").await;
        visitor
    }

    /// Somebody who needs no browser: a new account, and what it does.
    pub(crate) async fn caller(&self, name: &str) -> Caller {
        Caller::signed_up(&self.whole.url, &format!("{name}@example.com")).await
    }

    /// The same person, at a browser.
    pub(crate) async fn visits(&self, caller: &Caller, look: Look) -> Visitor {
        let visitor = self.visitor(look).await;
        visitor.is_now(Some(caller)).await;
        visitor.goes_to("/").await;
        visitor
    }

    /// Where the Stripe sandbox is.
    pub(crate) fn stripe_url(&self) -> &str {
        let line = self.whole.summary.iter().find_map(|line| line.split_once("sandbox at "));
        line.and_then(|(_, rest)| rest.split_once(": ")).expect("a line about the sandbox").0
    }

    /// How often the sandbox took money for the order, over all its intents.
    pub(crate) async fn captures(&self, order: &str) -> u64 {
        let ledger: Value = reqwest::get(format!("{}/_sandbox/ledger", self.stripe_url()))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let of_it =
            ledger.as_array().unwrap().iter().filter(|intent| intent["metadata"]["order_id"] == order);
        of_it.map(|intent| intent["captures"].as_u64().unwrap()).sum()
    }
}

/// A chromedriver, and the browsers that it drives.
pub(crate) struct Browsers {
    _driver: Child,
    /// Open as long as it writes.
    _output: BufReader<ChildStdout>,
    url: String,
    profiles: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Browsers {
    /// Starts it, when it is this test's turn. `None`: there is no browser, and need not be.
    pub(crate) async fn start() -> Option<Self> {
        if !there_is_one() {
            return None;
        }
        let alone = ONE_AT_A_TIME.lock().await;
        let mut driver = Command::new("chromedriver")
            .args(["--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let port = timeout(PATIENCE, port(&mut output)).await.expect("chromedriver starts in time");
        Some(Self {
            _driver: driver,
            _output: output,
            url: format!("http://127.0.0.1:{port}"),
            profiles: TempDir::new().unwrap(),
            _alone: alone,
        })
    }

    /// A new browser, at no page yet.
    pub(crate) async fn visitor(&self, site: &str, look: Look) -> Visitor {
        let profile = tempfile::tempdir_in(self.profiles.path()).unwrap();
        let mut wants = DesiredCapabilities::chrome();
        let profile = format!("--user-data-dir={}", profile.keep().display());
        for argument in [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ] {
            wants.add_arg(argument).unwrap();
        }
        let scripts = if look.scripts { 1 } else { 2 };
        let preferences = json!({ "profile.managed_default_content_settings.javascript": scripts });
        wants.add_experimental_option("prefs", preferences).unwrap();
        wants.set_browser_log_level(LoggingPrefsLogLevel::All).unwrap();
        let driver = WebDriver::new(&self.url, wants).await.unwrap();
        let visitor = Visitor { driver, site: site.to_owned() };
        visitor.looks(look).await;
        visitor
    }
}

async fn port(output: &mut BufReader<ChildStdout>) -> u16 {
    let mut lines = output.lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().unwrap();
        }
    }
    panic!("chromedriver ended")
}

/// The one place that decides what it means that there is no browser.
fn there_is_one() -> bool {
    let installed = |program: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    let missing = match (installed("chromedriver"), CHROMIUM.into_iter().any(installed)) {
        (true, true) => return true,
        (false, _) => "chromedriver",
        (true, false) => "Chromium",
    };
    let must_be = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must_be, "no {missing} on PATH, and CI is true: install chromium and chromium-driver");
    eprintln!("SKIPPED: this test needs a browser, and there is no {missing} on PATH");
    false
}

/// What somebody's browser is like.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    /// In CSS pixels.
    pub(crate) width: u64,
    pub(crate) height: u64,
    pub(crate) dark: bool,
    pub(crate) scripts: bool,
    pub(crate) language: &'static str,
    pub(crate) zone: &'static str,
}

impl Default for Look {
    fn default() -> Self {
        Self { width: 1280, height: 800, dark: false, scripts: true, language: "en-US", zone: "UTC" }
    }
}

impl Look {
    pub(crate) fn without_scripts() -> Self {
        Self { scripts: false, ..Self::default() }
    }
}

/// What is looked for, by what is written on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Field,
    Button,
    Link,
    Heading,
}

/// The first one shown that is called so; else the first whose name begins so.
const FIND: &str = r#"
const [kind, name] = arguments;
const plain = text => (text ?? "").replace(/\s+/g, " ").trim();
const shown = element => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
const called = element => plain(element.getAttribute("aria-label") ?? element.innerText ?? element.value);
const selector = { Field: "label", Button: "button", Link: "a[href]", Heading: "h1, h2, h3" }[kind];
const things = [...document.querySelectorAll(selector)].filter(shown);
const found = things.find(thing => called(thing) === name) ?? things.find(thing => called(thing).startsWith(name));
return (kind === "Field" ? found?.control : found) ?? null;
"#;

/// What the keyboard is at: what it is called, whether one sees that, and where in the document it is.
const FOCUS: &str = r#"
const element = document.activeElement;
const plain = text => (text ?? "").replace(/\s+/g, " ").trim();
const style = getComputedStyle(element);
const box = element.getBoundingClientRect();
const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
const at = document.elementFromPoint(box.x + Math.min(box.width, innerWidth) / 2, box.y + box.height / 2);
const around = element.labels?.[0] ?? element;
const before = window.focusedBefore;
const follows = !before?.isConnected
    || Boolean(before.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING);
window.focusedBefore = element;
return {
    tag: element.tagName.toLowerCase(),
    name: plain(element.getAttribute("aria-label") ?? element.labels?.[0]?.innerText ?? element.innerText),
    visible: ring && at !== null && (element.contains(at) || around.contains(at)),
    follows,
};
"#;

/// Where the keyboard is.
#[derive(Debug)]
pub(crate) struct Focus {
    tag: String,
    pub(crate) name: String,
    /// Whether one sees it there.
    is_visible: bool,
    /// Whether it comes after where the keyboard was before.
    follows: bool,
}

/// Somebody at a browser. Dropping it closes the browser.
pub(crate) struct Visitor {
    pub(crate) driver: WebDriver,
    site: String,
}

impl Visitor {
    /// Sets what can be changed while the browser runs.
    pub(crate) async fn looks(&self, look: Look) {
        // A page as wide as asked for: a window cannot be narrower than 500.
        let Look { width, height, .. } = look;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tells("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if look.dark { "dark" } else { "light" };
        let media = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            // What moves is measured half-way.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.tells("Emulation.setEmulatedMedia", media).await;
        self.tells("Emulation.setLocaleOverride", json!({ "locale": look.language })).await;
        self.tells("Emulation.setTimezoneOverride", json!({ "timezoneId": look.zone })).await;
        let agent = self.tells("Browser.getVersion", json!({})).await;
        let language = json!({ "userAgent": agent["userAgent"], "acceptLanguage": look.language });
        self.tells("Emulation.setUserAgentOverride", language).await;
    }

    /// A command of the DevTools protocol.
    async fn tells(&self, method: &str, parameters: Value) -> Value {
        self.driver
            .cdp()
            .send_raw(method, parameters)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Types an address.
    pub(crate) async fn goes_to(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.site)).await.unwrap();
    }

    /// Which page this is: its path and query.
    pub(crate) async fn path(&self) -> String {
        let url = self.driver.current_url().await.unwrap();
        url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
    }

    /// Signed in as that person from here on, or as nobody.
    pub(crate) async fn is_now(&self, caller: Option<&Caller>) {
        self.driver.delete_all_cookies().await.unwrap();
        if let Some(caller) = caller {
            let mut cookie = Cookie::new("session", caller.session());
            cookie.set_path("/");
            cookie.set_http_only(true);
            self.driver.add_cookie(cookie).await.unwrap();
        }
    }

    /// Makes an account, by the page for it.
    pub(crate) async fn signs_up(&self, email: &str) {
        self.follows("Sign Up").await;
        self.fills("Email address", email).await;
        self.fills("Password", PASSWORD).await;
        self.presses("Sign Up").await;
        self.sees(Thing::Button, "Sign Out").await;
    }

    /// Signs in on the page for it, at which this visitor is.
    pub(crate) async fn signs_in(&self, email: &str) {
        self.fills("Email address", email).await;
        self.fills("Password", PASSWORD).await;
        self.presses("Sign In").await;
        self.sees(Thing::Button, "Sign Out").await;
    }

    /// Lists a ticket, by the page for it; returns its path.
    pub(crate) async fn sells(&self, title: &str, price: &str) -> String {
        self.follows("Sell Tickets").await;
        self.fills("Title", title).await;
        self.fills("Price", price).await;
        self.presses("List it").await;
        self.sees(Thing::Heading, title).await;
        self.path().await
    }

    /// Sends a form as a page does that was open all the time.
    pub(crate) async fn posts(&self, path: &str, fields: &[(&str, &str)]) {
        let script = r#"
            const form = document.createElement("form");
            form.method = "post";
            form.action = arguments[0];
            for (const [name, value] of arguments[1]) {
                form.append(Object.assign(document.createElement("input"), { name, value }));
            }
            document.body.append(form);
            form.submit();
        "#;
        self.asks(script, &[json!(path), json!(fields)]).await;
    }

    /// Types into the field with that label, in place of what is there.
    pub(crate) async fn fills(&self, label: &str, text: &str) {
        self.acts(Thing::Field, label, async |field| {
            field.clear().await?;
            field.send_keys(text).await
        })
        .await;
    }

    /// Chooses the radio button or box with that label.
    pub(crate) async fn chooses(&self, label: &str) {
        self.acts(Thing::Field, label, async |field| field.click().await).await;
    }

    /// Clicks the button.
    pub(crate) async fn presses(&self, name: &str) {
        self.acts(Thing::Button, name, async |button| button.click().await).await;
    }

    /// Clicks it twice, as fast as a hand does.
    pub(crate) async fn presses_twice(&self, name: &str) {
        self.acts(Thing::Button, name, async |button| {
            button.scroll_into_view().await?;
            self.driver.action_chain().double_click_element(&button).perform().await
        })
        .await;
    }

    /// Clicks the link.
    pub(crate) async fn follows(&self, name: &str) {
        self.acts(Thing::Link, name, async |link| link.click().await).await;
    }

    /// Waits until there is such a thing.
    pub(crate) async fn sees(&self, thing: Thing, name: &str) -> WebElement {
        self.until(&format!("{thing:?} {name:?}"), async || self.finds(thing, name).await).await
    }

    /// Such a thing, if there is one now.
    pub(crate) async fn finds(&self, thing: Thing, name: &str) -> Option<WebElement> {
        let arguments = vec![json!(format!("{thing:?}")), json!(name)];
        let found = self.driver.execute(FIND, arguments).await.ok()?;
        if found.json().is_null() { None } else { found.element().ok() }
    }

    /// Does something to a thing, as soon as it is there and can be reached.
    async fn acts(
        &self,
        thing: Thing,
        name: &str,
        act: impl AsyncFn(WebElement) -> Result<(), WebDriverError>,
    ) {
        self.until(&format!("{thing:?} {name:?}, within reach"), async || {
            match act(self.finds(thing, name).await?).await {
                Ok(()) => Some(()),
                Err(error) if is_out_of_reach(&error) => None,
                Err(error) => panic!("{thing:?} {name:?}: {error}"),
            }
        })
        .await;
    }

    /// Waits until the page says so somewhere.
    pub(crate) async fn reads(&self, text: &str) {
        self.until(&format!("{text:?}"), async || self.text().await.contains(text).then_some(())).await;
    }

    /// Waits until there is such an element.
    pub(crate) async fn shows(&self, selector: &str) {
        self.until(selector, async || (self.count(selector).await > 0).then_some(())).await;
    }

    /// Waits until there is none.
    pub(crate) async fn shows_no(&self, selector: &str) {
        self.until(&format!("no {selector}"), async || (self.count(selector).await == 0).then_some(())).await;
    }

    /// How many such elements there are.
    pub(crate) async fn count(&self, selector: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        self.asks(script, &[json!(selector)]).await.as_u64().unwrap()
    }

    /// What is written in the first such element, with spaces as they are seen; nothing, where there is none.
    pub(crate) async fn text_of(&self, selector: &str) -> String {
        let script =
            r#"return (document.querySelector(arguments[0])?.innerText ?? "").replace(/\s+/g, " ").trim()"#;
        text(&self.asks(script, &[json!(selector)]).await)
    }

    /// What is written on the page, with spaces as they are seen.
    pub(crate) async fn text(&self) -> String {
        self.text_of("body").await
    }

    /// The heading of the page.
    pub(crate) async fn heading(&self) -> String {
        self.text_of("h1").await
    }

    /// The status that the page came with.
    pub(crate) async fn status(&self) -> u64 {
        let script = r#"return performance.getEntriesByType("navigation")[0].responseStatus"#;
        self.asks(script, &[]).await.as_u64().unwrap()
    }

    /// Runs a script on the page, which the page's own switch for scripts does not keep from running.
    pub(crate) async fn asks(&self, script: &str, arguments: &[Value]) -> Value {
        let result = self.driver.execute(script, arguments.to_vec()).await;
        result.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// Waits for an answer.
    pub(crate) async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let ask = async || match ask().await {
            None => self.loads_again_if_cut_off().await,
            answer => answer,
        };
        match within(SHOWS_WITHIN, ask).await {
            Some(answer) => answer,
            None => panic!("not in time: {what}, at {}:\n{}", self.path().await, self.text().await),
        }
    }

    /// Chromium drops all connections when an interface of the machine comes or goes, as containers' do.
    async fn loads_again_if_cut_off<T>(&self) -> Option<T> {
        if self.text().await.contains(CUT_OFF) {
            self.driver.refresh().await.unwrap();
        }
        None
    }

    /// Leaves a mark on the page as it is, which no new page has.
    pub(crate) async fn marks(&self) {
        self.asks("window.marked = true", &[]).await;
    }

    /// Whether this is the page that was marked.
    pub(crate) async fn is_marked(&self) -> bool {
        self.asks("return window.marked === true", &[]).await == true
    }

    /// Presses keys, wherever the keyboard is.
    pub(crate) async fn types(&self, keys: impl Into<thirtyfour::TypingData>) {
        self.driver.action_chain().send_keys(keys).perform().await.unwrap();
    }

    /// Where the keyboard is.
    pub(crate) async fn focus(&self) -> Focus {
        let found = self.asks(FOCUS, &[]).await;
        Focus {
            tag: text(&found["tag"]),
            name: text(&found["name"]),
            is_visible: found["visible"] == true,
            follows: found["follows"] == true,
        }
    }

    /// Presses Tab until the keyboard is at what is called so. Each stop on the way has to be seen, and to come after
    /// the one before it.
    pub(crate) async fn tabs_to(&self, name: &str) {
        let mut passed = Vec::new();
        loop {
            self.types(Key::Tab).await;
            let focus = self.focus().await;
            assert_ne!(focus.tag, "body", "no {name:?} by Tab at {}: {passed:?}", self.path().await);
            assert!(focus.is_visible, "one does not see where the keyboard is: {focus:?}");
            assert!(focus.follows, "out of order: {focus:?} after {passed:?}");
            if focus.name == name {
                return;
            }
            passed.push(focus.name);
        }
    }

    /// What the browser complains about since it was last asked: broken scripts, and what the page's security policy
    /// keeps from running. That a page has a status of its own is no complaint.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.driver.browser_log().await.unwrap();
        let severe = log.into_iter().filter(|entry| entry.level == "SEVERE").map(|entry| entry.message);
        let is_none = ["the server responded with a status of", CUT_OFF];
        severe.filter(|message| !is_none.iter().any(|known| message.contains(known))).collect()
    }

    /// The page in its full height, as PNG.
    pub(crate) async fn picture(&self, look: Look) -> Vec<u8> {
        self.looks(look).await;
        let height = self.asks("return document.documentElement.scrollHeight", &[]).await.as_u64().unwrap();
        self.looks(Look { height, ..look }).await;
        self.driver.screenshot_as_png().await.unwrap()
    }

    /// Closes the browser, which has nothing to complain about.
    pub(crate) async fn leaves(self) {
        assert_eq!(self.complaints().await, Vec::<String>::new(), "at {}", self.path().await);
        self.driver.quit().await.unwrap();
    }
}

/// The page changed meanwhile, or something is in the way: the next try may do.
fn is_out_of_reach(error: &WebDriverError) -> bool {
    use WebDriverErrorInner::{
        ElementClickIntercepted, ElementNotInteractable, InvalidElementState, NoSuchElement,
        StaleElementReference,
    };
    matches!(
        error.as_inner(),
        ElementClickIntercepted(_)
            | ElementNotInteractable(_)
            | InvalidElementState(_)
            | NoSuchElement(_)
            | StaleElementReference(_)
    )
}

/// The strings of a JSON array.
pub(crate) fn strings(array: &Value) -> Vec<String> {
    array.as_array().unwrap_or_else(|| panic!("not an array: {array}")).iter().map(text).collect()
}
