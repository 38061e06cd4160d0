//! `strftime_now`: the date and time of a render.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, State};

use super::error::fail;
use super::value::charge;

/// A date and time as the template sees it, without a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Year of the Gregorian calendar.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 60.
    pub second: u8,
    /// Microsecond, 0 to 999,999.
    pub microsecond: u32,
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl DateTime {
    /// The clock of the system, in UTC.
    pub fn utc_now() -> DateTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil(i64::try_from(seconds / 86_400).unwrap_or(0));
        let second = seconds % 86_400;
        DateTime {
            year,
            month,
            day,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
            microsecond: since.subsec_micros(),
        }
    }

    /// Days since the first of January of year 0.
    fn days(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let month = (i64::from(self.month) + 9) % 12;
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + i64::from(self.day)
    }

    /// 0 is Sunday.
    fn weekday(self) -> usize {
        (self.days() + 2).rem_euclid(7) as usize
    }

    fn day_of_year(self) -> i64 {
        self.days() - DateTime { month: 1, day: 1, ..self }.days() + 1
    }

    /// `datetime.strftime(format)` with the names of the C locale.
    pub(super) fn format(self, state: &State, format: &str) -> Result<String, Error> {
        // The longest directive writes about ten times its length, and slowly.
        charge(state, format.len() * 128)?;
        let mut out = String::new();
        self.append(&mut out, format)?;
        Ok(out)
    }

    fn append(self, out: &mut String, format: &str) -> Result<(), Error> {
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            // `%-d`: without the leading zero.
            let bare = directive == Some('-');
            if bare {
                directive = chars.next();
            }
            let mut field = String::new();
            match directive {
                Some(directive) => self.directive(&mut field, directive)?,
                None => field.push('%'),
            }
            let text = if bare { field.trim_start_matches(['0', ' ']) } else { &field };
            out.push_str(if bare && text.is_empty() { "0" } else { text });
        }
        Ok(())
    }

    fn directive(self, out: &mut String, directive: char) -> Result<(), Error> {
        let month = MONTHS.get(usize::from(self.month).wrapping_sub(1)).copied().unwrap_or("?");
        let weekday = self.weekday();
        let day = DAYS.get(weekday).copied().unwrap_or("?");
        let hour12 = (self.hour + 11) % 12 + 1;
        let yday = self.day_of_year();
        let written = match directive {
            'Y' => write!(out, "{}", self.year),
            'y' => write!(out, "{:02}", self.year.rem_euclid(100)),
            'C' => write!(out, "{:02}", self.year.div_euclid(100)),
            'm' => write!(out, "{:02}", self.month),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'H' => write!(out, "{:02}", self.hour),
            'I' => write!(out, "{hour12:02}"),
            'k' => write!(out, "{:2}", self.hour),
            'l' => write!(out, "{hour12:2}"),
            'M' => write!(out, "{:02}", self.minute),
            'S' => write!(out, "{:02}", self.second),
            'f' => write!(out, "{:06}", self.microsecond),
            'p' => write!(out, "{}", if self.hour < 12 { "AM" } else { "PM" }),
            'B' => write!(out, "{month}"),
            'b' | 'h' => write!(out, "{month:.3}"),
            'A' => write!(out, "{day}"),
            'a' => write!(out, "{day:.3}"),
            'w' => write!(out, "{weekday}"),
            'u' => write!(out, "{}", (weekday + 6) % 7 + 1),
            'j' => write!(out, "{yday:03}"),
            'U' => write!(out, "{:02}", (yday + 6 - weekday as i64) / 7),
            'W' => write!(out, "{:02}", (yday + 6 - (weekday as i64 + 6) % 7) / 7),
            'n' => out.write_char('\n'),
            't' => out.write_char('\t'),
            '%' => write!(out, "%"),
            // The clock that templates see has no zone.
            'z' | 'Z' => Ok(()),
            'F' => return self.append(out, "%Y-%m-%d"),
            'T' | 'X' => return self.append(out, "%H:%M:%S"),
            'R' => return self.append(out, "%H:%M"),
            'D' | 'x' => return self.append(out, "%m/%d/%y"),
            'r' => return self.append(out, "%I:%M:%S %p"),
            'c' => return self.append(out, "%a %b %e %H:%M:%S %Y"),
            other => return Err(fail(format!("strftime_now does not know the directive %{other}"))),
        };
        written.map_err(|_| fail("strftime_now failed"))
    }
}

/// The date that is `days` after the first of January 1970.
fn civil(days: i64) -> (i32, u8, u8) {
    // Counted from the first of March of year 0, so that the leap day is the last of a year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = (day - (153 * month + 2) / 5 + 1) as u8;
    let month = if month < 10 { month + 3 } else { month - 9 };
    ((year + era * 400 + i64::from(month <= 2)) as i32, month as u8, date)
}
