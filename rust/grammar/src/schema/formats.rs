//! Formats of strings as regexes, each of which matches a whole string and nothing that its RFC forbids.
//!
//! A format that is not listed here is an annotation, as JSON Schema says.

/// Years 0000 to 9999 (RFC 3339).
const YEAR: &str = "[0-9]{4}";
/// Years that have a 29 February.
const LEAP_YEAR: &str = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
const ZONE: &str = "(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
/// A second that is not a leap second.
const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]";
/// A leap second is the last one of a day in UTC, and is written in UTC here: with another offset it has another hour.
const LEAP_TIME: &str = r"23:59:60(?:\.[0-9]+)?(?:[zZ]|[+-]00:00)";
const OCTET: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// A label of a host name (RFC 1123): at most 63 characters. Two hyphens in the third and fourth place are reserved (RFC 5891) for
/// encoded labels, which begin with xn; whether the rest of one decodes is not checked, as no regex can.
const LABEL: &str = concat!(
    "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]{0,2}[a-zA-Z0-9]",
    "|(?:[a-zA-Z0-9][a-zA-Z0-9-](?:[a-zA-Z0-9][a-zA-Z0-9-]|-[a-zA-Z0-9])|[xX][nN]--)[a-zA-Z0-9-]{0,58}[a-zA-Z0-9])"
);
const ATOM: &str = r"[a-zA-Z0-9!#$%&'*+\-/=?\^_`{|}~]+";
/// Characters of a path, and of a query or fragment (RFC 3986).
const PCHAR: &str = "(?:[a-zA-Z0-9\\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})";
const QCHAR: &str = "(?:[a-zA-Z0-9\\-._~!$&'()*+,;=:@/?]|%[0-9a-fA-F]{2})";

/// Maximum number of characters of a string of the format `name`.
pub fn max_length(name: &str) -> Option<u64> {
    match name {
        "hostname" => Some(253),
        // A path has 256, with its brackets (RFC 5321).
        "email" => Some(254),
        _ => None,
    }
}

/// The regexes that a string of the format `name` with at most `length` characters matches, all of them; `None` for a format that is
/// not checked.
pub fn regexes(name: &str, length: Option<u64>) -> Option<Vec<String>> {
    let one = match name {
        "date" => date(YEAR),
        "time" => format!(r"{TIME}(?:\.[0-9]+)?{ZONE}|{LEAP_TIME}"),
        "date-time" => {
            format!(r"(?:{})[tT]{TIME}(?:\.[0-9]+)?{ZONE}|{YEAR}-(?:06-30|12-31)[tT]{LEAP_TIME}", date(YEAR))
        }
        "duration" => duration(),
        "email" => {
            let mut all = email();
            // The second bounds a part that is shorter than all of it.
            all.truncate(if length.is_some_and(|length| length <= 64) { 1 } else { 2 });
            return Some(all);
        }
        "hostname" => hostname(),
        "ipv4" => ipv4(),
        "ipv6" => ipv6(),
        "uuid" => "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}".to_owned(),
        "uri" => uri(),
        "uri-reference" => format!("{}|{}", uri(), relative_reference()),
        "json-pointer" => json_pointer().to_owned(),
        "relative-json-pointer" => format!("(?:0|[1-9][0-9]*)(?:#|{})", json_pointer()),
        _ => return None,
    };
    Some(vec![whole(&one)])
}

fn whole(regex: &str) -> String {
    format!("^(?:{regex})$")
}

fn date(year: &str) -> String {
    format!(
        "{year}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{LEAP_YEAR}-02-29"
    )
}

/// RFC 3339, appendix A: units follow each other without gaps.
fn duration() -> String {
    let time = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)";
    format!("P(?:(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)(?:{time})?|{time}|[0-9]+W)")
}

fn hostname() -> String {
    format!(r"{LABEL}(?:\.{LABEL})*")
}

/// A mailbox (RFC 5321): at most 64 characters before the @.
fn email() -> Vec<String> {
    let local = format!(r#"(?:{ATOM}(?:\.{ATOM})*|"(?:[ !#-\[\]-~]|\\[ -~])*")"#);
    let literal = format!(r"\[(?:{}|IPv6:(?:{}))\]", ipv4(), ipv6());
    // Its parts tell early where the @ is: whether an intersection has any text must be seen within a limit.
    let bounded = r#"(?:[^"@]{1,64}|""|"[^"].{0,61}")@[^@"]+"#;
    vec![whole(&format!("{local}@(?:{}|{literal})", hostname())), whole(bounded)]
}

fn ipv4() -> String {
    format!(r"(?:{OCTET}\.){{3}}{OCTET}")
}

/// RFC 3986, section 3.2.2.
fn ipv6() -> String {
    let part = "[0-9a-fA-F]{1,4}";
    let last = format!("(?:{part}:{part}|{})", ipv4());
    let before = |most: usize| if most == 0 { format!("(?:{part})?") } else { format!("(?:(?:{part}:){{0,{most}}}{part})?") };
    let mut forms = vec![format!("(?:{part}:){{6}}{last}"), format!("::(?:{part}:){{5}}{last}")];
    for (index, parts) in (0..=4).rev().enumerate() {
        forms.push(format!("{}::(?:{part}:){{{parts}}}{last}", before(index)));
    }
    forms.push(format!("{}::{part}", before(5)));
    forms.push(format!("{}::", before(6)));
    forms.join("|")
}

fn authority() -> String {
    let name = "[a-zA-Z0-9\\-._~!$&'()*+,;=]|%[0-9a-fA-F]{2}";
    let future = "[vV][0-9a-fA-F]+\\.[a-zA-Z0-9\\-._~!$&'()*+,;=:]+";
    format!("//(?:(?:{name}|:)*@)?(?:\\[(?:{}|{future})\\]|(?:{name})*)(?::[0-9]*)?(?:/{PCHAR}*)*", ipv6())
}

fn tail() -> String {
    format!(r"(?:\?{QCHAR}*)?(?:\#{QCHAR}*)?")
}

/// RFC 3986.
fn uri() -> String {
    let path = format!("/?(?:{PCHAR}+(?:/{PCHAR}*)*)?");
    format!("[a-zA-Z][a-zA-Z0-9+\\-.]*:(?:{}|{path}){}", authority(), tail())
}

/// A reference without a scheme, whose first segment therefore has no colon.
fn relative_reference() -> String {
    let first = "(?:[a-zA-Z0-9\\-._~!$&'()*+,;=@]|%[0-9a-fA-F]{2})+";
    let path = format!("(?:/(?:{PCHAR}+(?:/{PCHAR}*)*)?|{first}(?:/{PCHAR}*)*)?");
    format!("(?:{}|{path}){}", authority(), tail())
}

/// RFC 6901.
fn json_pointer() -> &'static str {
    "(?:/(?:[^/~]|~[01])*)*"
}

#[cfg(test)]
mod tests {
    use llguidance::derivre::RegexBuilder;
    use llguidance::regex_to_lark;

    use super::*;

    fn matches(format: &str, text: &str) -> bool {
        let fits = max_length(format).is_none_or(|most| text.chars().count() as u64 <= most);
        fits && regexes(format, None).unwrap().iter().all(|regex| {
            let mut builder = RegexBuilder::new();
            let regex = builder.mk_regex_for_serach(&regex_to_lark(regex, "dw")).unwrap();
            builder.to_regex(regex).is_match(text)
        })
    }

    #[track_caller]
    fn check(format: &str, valid: &[&str], invalid: &[&str]) {
        for text in valid {
            assert!(matches(format, text), "{format} does not take {text:?}");
        }
        for text in invalid {
            assert!(!matches(format, text), "{format} takes {text:?}");
        }
    }

    #[test]
    fn dates_exist() {
        check(
            "date",
            &["2024-02-29", "2000-02-29", "0004-02-29", "1999-12-31", "2400-02-29", "2023-04-30", "0001-01-01", "0000-01-01", "0000-02-29"],
            &[
                "2021-02-29",
                "2100-02-29",
                "1900-02-29",
                "2024-02-30",
                "2023-04-31",
                "2023-13-01",
                "2023-00-01",
                "2023-01-00",
                "0100-02-29",
                "98-01-01",
                "2024-2-29",
                "2024-02-29T",
            ],
        );
        check(
            "date-time",
            &["1998-12-31T23:59:60Z", "2016-06-30t23:59:60.25+00:00", "2024-02-29T00:00:00.5-08:30", "1963-06-19t08:30:06.283185z"],
            &[
                "1998-12-31T23:58:60Z",
                "1998-12-31T22:59:60Z",
                "1998-12-30T23:59:60Z",
                "2021-02-29T00:00:00Z",
                "1998-12-31T23:59:61Z",
                "1998-12-31T24:00:00Z",
                "1998-12-31T23:59:59",
                "1998-12-31 23:59:59Z",
                "1998-12-31T23:59:59.Z",
                "1998-12-31T23:59:59+24:00",
            ],
        );
        check(
            "time",
            &["23:59:60Z", "08:30:06.28Z", "00:00:00+23:59", "23:59:60-00:00"],
            &["22:59:60Z", "23:58:60Z", "08:30:06", "8:30:06Z", "24:00:00Z", "23:59:60+01:00", "12:00:00+00:60"],
        );
        check(
            "duration",
            &["P4DT12H30M5S", "P1Y2M3D", "PT36H", "P2W", "PT1M", "P0D", "P1M2D"],
            &["P", "PT", "P1YT", "P1Y2W", "PT1D", "4DT", "P1Y1D", "PT1H2S", "P2D1Y", "PT0.5S"],
        );
    }

    #[test]
    fn hosts_and_mailboxes_are_as_short_as_their_rfcs_say() {
        let long = |n: usize| "a".repeat(n);
        let host = |parts: usize| vec![long(60); parts].join(".");
        check(
            "hostname",
            &["a", "a1", "a-b", "1.2", "www.example.com", "a--b", "xn--bcher-kva.example", "XN--p1ai", &long(63), &host(4)],
            &[
                "",
                "-a",
                "a-",
                "a.",
                ".a",
                "a..b",
                "a_b",
                "a b",
                "xn--",
                "xn---",
                "ab--c",
                "xm--x",
                &format!("xn--{}", long(60)),
                &long(64),
                &host(5),
                "é",
            ],
        );
        check(
            "email",
            &[
                "a@b",
                "joe.bloggs@example.com",
                "\"a b\"@example.com",
                "\"a\\\"b\"@example.com",
                "\"a@b\"@c.d",
                "\"\"@c.d",
                "\"\\\"\"@c.d",
                &format!("\"{}\"@b", long(62)),
                "a@[127.0.0.1]",
                "a@[IPv6:::1]",
                "te~st@example.com",
                &format!("{}@b", long(64)),
            ],
            &[
                "a",
                "@b",
                "a@",
                ".a@b",
                "a.@b",
                "a..b@c",
                "a b@c",
                "a@b@c",
                "a@-b",
                "a@[127.0.0.300]",
                "a@[::1]",
                "\"a\"b@c",
                &format!("{}@b", long(65)),
                &format!("\"{}\"@b", long(63)),
                &format!("a@{}", host(5)),
            ],
        );
    }

    #[test]
    fn addresses() {
        check("ipv4", &["0.0.0.0", "255.1.19.200"], &["256.0.0.1", "01.1.1.1", "1.1.1", "1.1.1.1.1", "1.1.1.1 "]);
        check(
            "ipv6",
            &[
                "::",
                "::1",
                "1::",
                "1:2:3:4:5:6:7:8",
                "::ffff:192.168.0.1",
                "1::8",
                "1:2:3:4:5:6:1.2.3.4",
                "1:2:3:4:5:6:7::",
                "::2:3:4:5:6:7:8",
                "a::1.2.3.4",
            ],
            &[
                ":",
                "1:2:3:4:5:6:7",
                "1:2:3:4:5:6:7:8:9",
                "1::2::3",
                "12345::",
                ":1",
                "1:",
                ":::",
                "1:2:3:4:5:6:7::8",
                "::1%eth0",
                "::1.2.3",
                "::256.1.1.1",
                "1:2:3:4:5:6:7:1.2.3.4",
            ],
        );
        check(
            "uuid",
            &["2EB8AA08-aa98-11ea-b4aa-73b441d16380"],
            &["2eb8aa08aa9811eab4aa73b441d16380", "2eb8aa08-aa98-11ea-b4aa-73b441d1638"],
        );
    }

    #[test]
    fn uris_and_pointers() {
        let uris = [
            "http://foo.bar/?baz=qux#quux",
            "urn:a:b",
            "mailto:a@b.c",
            "a:",
            "http://[::1]:80/x",
            "file:///etc",
            "x:/a//b",
            "http://u:p@h:1/%20",
        ];
        check(
            "uri",
            &uris,
            &[
                "",
                "//a/b",
                "/a",
                "a",
                ":a",
                "1a:b",
                "http://a b",
                "http://[::g]",
                "http://[1]/",
                "a:%zz",
                "a:b#c#d",
                "http://a\\b",
                "bar,://x",
            ],
        );
        check(
            "uri-reference",
            &[&uris[..], &["", "/a/b", "//a/b", "a/b:c", "#x", "?q", "../a"][..]].concat(),
            &["\\a", "a b", "#a#b", "%z", "1:b"],
        );
        check("json-pointer", &["", "/", "/a~1b/~0", "/é/0"], &["a", "/~", "/~2", "#/a"]);
        check("relative-json-pointer", &["0", "1/a", "0#", "12/"], &["", "-1", "01", "/a", "0##", "1a"]);
        assert_eq!(regexes("int32", None), None);
    }
}
