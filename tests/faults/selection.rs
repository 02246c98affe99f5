//! Which entries a client asks for: all, or those of some tenants. The writer gives each entry a tenant, by its number.

/// The field that has the tenant.
pub const FIELD: &str = "tenant";
const TENANTS: u64 = 3;

/// Whose the entry of this number is.
pub fn tenant(number: u64) -> u64 {
    number % TENANTS
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Every entry.
    #[default]
    All,
    /// Those of these tenants.
    Tenants(&'static [u64]),
}

impl Selection {
    /// Whether it gets the entry of this number.
    pub fn admits(self, number: u64) -> bool {
        match self {
            Self::All => true,
            Self::Tenants(tenants) => tenants.contains(&tenant(number)),
        }
    }

    /// Whether it may get less than all.
    pub fn withholds(self) -> bool {
        self != Self::All
    }

    /// The path of a client that asks for it there.
    pub fn at(self, path: &str) -> String {
        match self {
            Self::All => path.to_owned(),
            Self::Tenants(tenants) => {
                let tenants: Vec<_> = tenants.iter().map(ToString::to_string).collect();
                let separator = if path.contains('?') { '&' } else { '?' };
                format!("{path}{separator}{FIELD}={}", tenants.join(","))
            }
        }
    }

    /// What the client of this index asks for. With these come HTTP/1.1 on both paths, HTTP/1.0, and, in long runs,
    /// HTTP/2.
    pub fn of_client(index: usize) -> Self {
        match index {
            5 | 6 | 13 => Self::Tenants(&[1, 2]),
            9 => Self::Tenants(&[0]),
            _ => Self::All,
        }
    }
}
