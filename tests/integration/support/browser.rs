//! A headless Chromium, driven by the few commands of `WebDriver` that a test needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::Folder;
use super::waiting::up_to_three_times;

/// A cold browser on a loaded machine takes its time.
const ANSWER: Duration = Duration::from_secs(60);

/// One browser with one window, closed on drop.
pub struct Browser {
    driver: Child,
    address: String,
    session: String,
    profile: Folder,
}

impl Browser {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One that believes every certificate.
    pub fn start_trusting_all() -> Self {
        Self::with(&["--ignore-certificate-errors"])
    }

    /// The same, and this name is at this address.
    pub fn start_resolving(name: &str, ip: &str) -> Self {
        let rule = format!("--host-resolver-rules=MAP {name} {ip}");
        Self::with(&["--ignore-certificate-errors", &rule])
    }

    fn with(more_flags: &[&str]) -> Self {
        up_to_three_times("a browser", || Self::try_with(more_flags))
    }

    fn try_with(more_flags: &[&str]) -> Result<Self, String> {
        let profile = Folder::new();
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (apt: chromium-driver) must be installed");
        let (address, session) = (String::new(), String::new());
        let mut browser = Self { driver, address, session, profile };
        browser.address = format!("127.0.0.1:{}", port(&mut browser.driver)?);
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ];
        let flags = flags.iter().chain(more_flags);
        let mut flags: Vec<_> = flags.map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--user-data-dir={}", browser.profile.0.display()));
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let session = browser.try_call("POST", "/session", &wanted);
        let session = session.ok_or("chromedriver does not answer")?;
        let id = session["sessionId"].as_str().ok_or_else(|| session.to_string())?;
        id.clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// What this function body returns in the page.
    pub fn script(&self, body: &str) -> Value {
        self.command("execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// Makes its window so large, in CSS pixels; a narrow one is a phone's.
    pub fn resize(&self, width: u32, height: u32) {
        let phone = width < 500;
        let scale = if phone { 2 } else { 1 };
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Prefers `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// Presses these keys one after the other, as if on its keyboard.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.command("actions", &json!({ "actions": [keyboard] }));
    }

    /// All of its page, as a PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let all = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.devtools("Page.captureScreenshot", &all);
        let text = shot["data"].as_str().expect("an image");
        base64::engine::general_purpose::STANDARD.decode(text).expect("in base64")
    }

    fn devtools(&self, name: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// What the console said since last asked: objects with `level`, `source` and `message`.
    pub fn console(&self) -> Vec<Value> {
        let log = self.command("se/log", &json!({ "type": "browser" }));
        log.as_array().expect("a log").clone()
    }

    fn command(&self, name: &str, arguments: &Value) -> Value {
        self.call("POST", &format!("/session/{}/{name}", self.session), arguments)
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let value = self.try_call(method, path, body).expect("the driver answers");
        assert!(value["error"].is_null(), "{path}: {value}");
        value
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let (host, body) = (&self.address, body.to_string());
        let mut stream = TcpStream::connect(host).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut stream = BufReader::new(stream);
        let mut status = String::new();
        stream.read_line(&mut status).ok()?;
        let mut length = 0;
        // Headers, up to the empty line.
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).ok()?;
        let mut answer: Value = serde_json::from_slice(&answer).ok()?;
        Some(answer["value"].take())
    }
}

/// The port that the driver chose; what it says later is thrown away. Of two that choose the same one, because
/// they start at the same moment, one ends.
fn port(driver: &mut Child) -> Result<u16, String> {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = String::new();
    let port = lines.by_ref().take(50).find_map(|line| {
        said = said.clone() + &line + "\n";
        let (_, rest) = line.split_once("started successfully on port ")?;
        rest.trim_end_matches('.').parse().ok()
    });
    std::thread::spawn(move || lines.for_each(drop));
    port.ok_or_else(|| format!("chromedriver told no port: {said}"))
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Else Chromium would outlive its driver.
            let _ = self.try_call("DELETE", &format!("/session/{}", self.session), &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
