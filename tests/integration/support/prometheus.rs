//! A real Prometheus that scrapes a gateway with the configuration that is shipped; and promtool.

use std::fs::{File, read_to_string, write};
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::address::own_address;
use super::gateway::{Response, exchange};
use super::{Folder, eventually};

pub const RULES: &str = include_str!("../../../deploy/prometheus/rules.yml");
const SCRAPE: &str = include_str!("../../../deploy/prometheus/scrape.yml");

/// A running Prometheus, stopped on drop.
pub struct Prometheus {
    folder: Folder,
    process: Child,
    address: String,
}

impl Prometheus {
    /// Starts it; it scrapes a `target` each second, and goes by these rules.
    pub fn start(target: &str, rules: &str) -> Self {
        let (folder, address) = (Folder::new(), own_address().to_string());
        let file = folder.0.join("prometheus.yml");
        write(&file, configuration(target)).unwrap();
        write(folder.0.join("rules.yml"), rules).unwrap();
        let log = File::create(folder.0.join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.0.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().expect("prometheus (apt: prometheus) must be installed");
        let mut prometheus = Self { folder, process, address };
        eventually("Prometheus is ready", || {
            let ended = prometheus.process.try_wait().unwrap();
            assert!(ended.is_none(), "Prometheus ended: {}", prometheus.log());
            std::net::TcpStream::connect(&prometheus.address).is_ok()
                && prometheus.get("/-/ready").status == 200
        });
        prometheus
    }

    /// In HTTP/1.0, so that the answer is not in chunks.
    fn get(&self, path: &str) -> Response {
        exchange(&self.address, &format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n"))
    }

    /// The `data` of an answer of its API; an error's words.
    fn ask(&self, path: &str) -> Result<Value, String> {
        let response = self.get(&format!("/api/v1/{path}"));
        let mut answer: Value = serde_json::from_str(&response.body).map_err(|_| response.head)?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The series that an expression has now.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let query = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.ask(&format!("query?query={query}"))?;
        Ok(data["result"].as_array().ok_or("no vector")?.clone())
    }

    /// Every rule, as Prometheus has read it.
    pub fn rules(&self) -> Vec<Value> {
        let data = self.ask("rules").unwrap();
        let rules = |group: &Value| group["rules"].as_array().unwrap().clone();
        data["groups"].as_array().unwrap().iter().flat_map(rules).collect()
    }

    /// The alerts that fire now, by name.
    pub fn firing(&self) -> Vec<String> {
        let data = self.ask("alerts").unwrap();
        let alerts = data["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn log(&self) -> String {
        read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- Prometheus' log ---\n{}", self.log());
        }
    }
}

/// The shipped configuration, of one target and hurried.
fn configuration(target: &str) -> String {
    let mut text = SCRAPE.to_owned();
    let mut replace = |shipped: &str, own: &str| {
        assert_eq!(text.matches(shipped).count(), 1, "{shipped:?} in deploy/prometheus/scrape.yml");
        text = text.replace(shipped, own);
    };
    replace("          - 10.0.0.12:9464\n", "");
    replace("10.0.0.11:9464", target);
    replace("scrape_interval: 15s", "scrape_interval: 1s");
    replace("evaluation_interval: 15s", "evaluation_interval: 1s");
    text
}

/// What `promtool` says, given this input.
pub fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("promtool (apt: prometheus) must be installed");
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    process.wait_with_output().unwrap()
}
