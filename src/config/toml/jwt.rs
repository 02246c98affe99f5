//! Reads `[auth.jwt]`: keys, the algorithms of each, and what a token has to say.

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use url::{Host, Url};

use super::section::{Found, Section};
use super::tls;
use crate::config::diagnostics::{Location, did_you_mean};
use crate::config::jwk::{self, ALGORITHMS, VerifyingKey};
use crate::config::units::{self, WrittenValue};
use crate::config::{Jwt, KeyPlace, Keys, TokenPlace, secret};

/// Clocks differ by seconds; more would only prolong the life of expired tokens.
const MAX_LEEWAY: &str = "60s";

/// Where an entry says that its key is: the name of the setting, its value, and where it is written.
type Material = (&'static str, String, Found);

/// The section, and whether it names any keys, with faults or without.
pub(super) fn jwt(mut section: Section<'_, '_>) -> (Jwt, bool) {
    let found = section.found("keys", WrittenValue::list([]));
    section.show(&found, found.value.to_string());
    let keys = keys(&mut section, &found);
    let text = |text: &str| match text {
        "" => Err("empty; write the value of the claim".to_owned()),
        text => Ok(text.to_owned()),
    };
    let issuers = section.listed("issuer", &[], text);
    let audiences = section.listed("audience", &[], text);
    let required = section.found("require", WrittenValue::list(["exp"]));
    section.show(&required, required.value.to_string());
    let require = section.list(&required, text);
    let jwt = Jwt {
        issuers,
        audiences,
        leeway: section.duration("leeway", "10s", "0s", MAX_LEEWAY),
        from: places(&mut section),
        warn: section.duration("warn", "60s", "0s", "1d"),
        require,
        keys: keys.iter().map(|(_, keys)| keys.clone()).collect(),
    };
    if !jwt.require.iter().any(|claim| claim == "exp") {
        section.fault(
            &required,
            "lacks \"exp\": a stream ends when its token expires, so every token has to say when; add it",
        );
    }
    check_bindings(&mut section, &jwt, &keys);
    section.end();
    let names_keys = !matches!(&found.value, WrittenValue::List(elements) if elements.is_empty());
    (jwt, names_keys)
}

fn places(section: &mut Section<'_, '_>) -> Vec<TokenPlace> {
    let found = section.found("from", WrittenValue::list(["header"]));
    section.show(&found, found.value.to_string());
    let places = section.list(&found, TokenPlace::parse);
    if matches!(&found.value, WrittenValue::List(elements) if elements.is_empty()) {
        section.fault(&found, "names no place: no token would be found; write [\"header\"]");
    }
    places
}

/// The keys of an issuer verify only its own tokens, and only those that are meant for this gateway.
fn check_bindings(section: &mut Section<'_, '_>, jwt: &Jwt, keys: &[(Material, Keys)]) {
    for ((name, _, found), keys) in keys {
        if jwt.audiences.is_empty() && name.starts_with("jwks_") {
            section.fault(
                found,
                "this issuer also signs for others, and their tokens would be valid here; write the audience of yours in auth.jwt.audience, as in [\"ssegate\"]",
            );
        }
        let hint = did_you_mean(
            keys.issuer.as_deref().unwrap_or(""),
            jwt.issuers.iter().map(String::as_str),
        );
        match &keys.issuer {
            Some(issuer) if !jwt.issuers.contains(issuer) => section.fault(
                found,
                format!("is of issuer \"{issuer}\", which auth.jwt.issuer does not list{hint}"),
            ),
            None if jwt.issuers.len() > 1 => section.fault(
                found,
                "could sign for any of the issuers; write its own, as in issuer = \"https://login.example\"",
            ),
            _ => {}
        }
    }
}

fn keys(section: &mut Section<'_, '_>, found: &Found) -> Vec<(Material, Keys)> {
    const WRONG: &str = "not a list of keys; write tables, as in [{ alg = \"HS256\", secret_file = \"jwt.secret\" }]";
    let WrittenValue::List(elements) = &found.value else {
        section.fault(found, WRONG);
        return Vec::new();
    };
    let mut keys = Vec::new();
    for (at, element) in elements {
        match element {
            WrittenValue::Table(items) => {
                let header = match &found.location {
                    Location::File { .. } => section.reader.location(*at),
                    location => location.clone(),
                };
                keys.extend(key(Section::verifying_key(section.reader, items.clone()), &header));
            }
            other => section.fault_in(found, *at, other, WRONG),
        }
    }
    keys
}

fn key(mut section: Section<'_, '_>, header: &Location) -> Option<(Material, Keys)> {
    let algorithms = algorithms(&mut section, header);
    let issuer = optional(&mut section, "issuer").map(|(issuer, _)| issuer);
    let material = material(&mut section, header);
    let read = algorithms.zip(material).and_then(|(algorithms, material)| {
        let place = place(&mut section, &material, &algorithms);
        let told = place.map_err(|why| section.fault(&material.2, why));
        Some((material, Keys { issuer, place: told.ok()? }))
    });
    section.end();
    read
}

/// One algorithm, or a list.
fn algorithms(section: &mut Section<'_, '_>, header: &Location) -> Option<Vec<Algorithm>> {
    let Some(found) = section.written("alg", &"".into()) else {
        section.reader.missing(
            header.clone(),
            "auth.jwt.keys.alg",
            "missing; write the algorithms of the key, as in alg = \"HS256\" (a token must not choose its own)",
        );
        return None;
    };
    if let WrittenValue::Text(name) = &found.value {
        let read = algorithm(name).map_err(|why| section.fault(&found, why));
        return read.ok().map(|algorithm| vec![algorithm]);
    }
    let wanted = match &found.value {
        WrittenValue::List(elements) => elements.len(),
        _ => 0,
    };
    let algorithms = section.list(&found, algorithm);
    if wanted == 0 && matches!(found.value, WrittenValue::List(_)) {
        section.fault(&found, "names no algorithm; write those of the key");
    }
    (wanted > 0 && algorithms.len() == wanted).then_some(algorithms)
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let names = || ALGORITHMS.map(|(name, _)| name);
    let known = ALGORITHMS.iter().find(|(name, _)| *name == text);
    known.map(|(_, algorithm)| *algorithm).ok_or_else(|| {
        let hint = did_you_mean(text, names());
        format!(
            "not an algorithm that the gateway verifies; write one of {}{hint}",
            names().join(", ")
        )
    })
}

fn optional(section: &mut Section<'_, '_>, name: &'static str) -> Option<(String, Found)> {
    let found = section.written(name, &"".into())?;
    match units::text(&found.value) {
        Ok(text) if !text.is_empty() => Some((text, found)),
        Ok(_) => {
            section.fault(&found, "empty; write its value, or remove it");
            None
        }
        Err(why) => {
            section.fault(&found, why);
            None
        }
    }
}

fn material(section: &mut Section<'_, '_>, header: &Location) -> Option<Material> {
    const NAMES: [&str; 4] = ["secret_file", "public_key_file", "jwks_file", "jwks_url"];
    let mut written = NAMES.into_iter().filter_map(|name| {
        let found = section.written(name, &"".into())?;
        Some((name, found))
    });
    let first = written.next();
    let others: Vec<(&str, Found)> = written.collect();
    for (_, found) in others {
        section.fault(&found, "a key has only one place; write a table for each key");
    }
    let Some((name, found)) = first else {
        section.reader.missing(
            header.clone(),
            "auth.jwt.keys",
            "does not say where the key is; write secret_file, public_key_file, jwks_file or jwks_url",
        );
        return None;
    };
    match units::text(&found.value) {
        Ok(text) => Some((name, text, found)),
        Err(why) => {
            section.fault(&found, why);
            None
        }
    }
}

/// The keys at the place that an entry names.
fn place(
    section: &mut Section<'_, '_>,
    (name, text, found): &Material,
    algorithms: &[Algorithm],
) -> Result<KeyPlace, String> {
    let shared = algorithms.iter().filter(|a| a.family() == AlgorithmFamily::Hmac).count();
    if *name != "jwks_file" && *name != "jwks_url" {
        let families = |a: &Algorithm| a.family() == algorithms[0].family();
        if !algorithms.iter().all(families) {
            return Err("cannot be used with all algorithms of alg, which are for different kinds of keys; write a table for each".into());
        }
    }
    let credentials = section.reader.credentials.clone();
    let credentials = credentials.as_deref();
    let keys = match *name {
        "secret_file" if shared == 0 => {
            return Err(
                "a secret is for HS256, HS384 or HS512; for other algorithms name a public_key_file"
                    .into(),
            );
        }
        "secret_file" => {
            let secret = secret::read(text, credentials)?;
            if secret.expose().trim_start().starts_with("-----BEGIN") {
                return Err("holds a key in PEM form, not a secret: everybody who has the public key could sign; name it in public_key_file, with its own alg".into());
            }
            let bytes = secret.expose().len();
            let least = algorithms.iter().map(|a| jwk::least_secret_bytes(*a)).max().unwrap_or(0);
            if bytes < least {
                section.warn(found, format!("a secret of {bytes} bytes can be guessed by anybody who has a token; use at least {least} random bytes (RFC 7518, 3.2)"));
            }
            vec![VerifyingKey::secret(secret.expose().as_bytes(), algorithms)]
        }
        "public_key_file" => {
            if shared > 0 {
                return Err("a public key is not a secret: with HS256, HS384 or HS512 everybody who has it could sign; write its own algorithm, as in alg = \"RS256\"".into());
            }
            vec![VerifyingKey::public(&secret::text(text, credentials)?, algorithms)?]
        }
        "jwks_file" => {
            let keys = jwk::set(secret::text(text, credentials)?.as_bytes(), algorithms)?;
            if keys.is_empty() {
                return Err("holds no key for the algorithms of alg".into());
            }
            keys
        }
        _ => {
            if shared > 0 {
                return Err("everybody who can read that URL would know the secret of HS256, HS384 or HS512; write it into a file (secret_file, jwks_file)".into());
            }
            return url(text, algorithms);
        }
    };
    Ok(KeyPlace::Here(keys))
}

fn url(text: &str, algorithms: &[Algorithm]) -> Result<KeyPlace, String> {
    let wrong = || {
        "not the URL of a set of keys; write it in full, as in \"https://login.example/.well-known/jwks.json\"".to_owned()
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "holds a user name or password, which the gateway does not send; remove it".into()
        );
    }
    if !matches!(url.host(), Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_))) {
        return Err(wrong());
    }
    let tls = match url.scheme() {
        "http" => None,
        "https" => Some(tls::of_system()?),
        _ => return Err(wrong()),
    };
    Ok(KeyPlace::Url { url, tls, algorithms: algorithms.to_vec() })
}
