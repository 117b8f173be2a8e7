//! Markdown of a size that GitHub takes: rows give way first, the verdict never.

/// GitHub takes 65,536 signs in a comment, and people write something beside what is pasted.
pub(crate) const LIMIT: usize = 65_000;

/// How much a page may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Rows of a table, and other lines of the same kind.
    pub rows: usize,
    /// Rows of the table of faults.
    pub faults: usize,
    /// Faults that are only named behind it.
    pub names: usize,
    /// Signs of a paragraph.
    pub chars: usize,
}

/// From the largest to the least. What is not a fault gives way first.
const ROOMS: [Room; 6] = [
    Room { rows: 500, faults: 200, names: 5000, chars: 1500 },
    Room { rows: 120, faults: 150, names: 5000, chars: 1000 },
    Room { rows: 40, faults: 100, names: 5000, chars: 600 },
    Room { rows: 12, faults: 60, names: 1000, chars: 400 },
    Room { rows: 4, faults: 20, names: 100, chars: 200 },
    Room { rows: 1, faults: 5, names: 10, chars: 60 },
];

/// Sections of a page, the most important first.
pub(crate) type Sections = Vec<Vec<String>>;

/// The page in the largest room in which it is below the limit. If it is not even in the least, sections from
/// the end on are left out, and it says so.
pub(crate) fn fitted(page: impl Fn(Room) -> Sections) -> String {
    let fits = |text: &String| text.len() < LIMIT;
    let text = |sections: &[Vec<String>]| sections.concat().join("\n") + "\n";
    let whole = ROOMS.into_iter().map(|room| text(&page(room))).find(fits);
    whole.unwrap_or_else(|| {
        let mut sections = page(ROOMS[ROOMS.len() - 1]);
        while sections.pop().is_some() {
            let said = vec![String::new(), "… (cut; all of it is in report.json)".to_owned()];
            let cut = text(&[sections.clone(), vec![said]].concat());
            if fits(&cut) {
                return cut;
            }
        }
        String::new()
    })
}

/// Lines that are shown when a reader asks for them; nothing around nothing.
pub(crate) fn folded(summary: &str, open: bool, lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() {
        return lines;
    }
    let open = if open { " open" } else { "" };
    let opening = [String::new(), format!("<details{open}><summary>{summary}</summary>"), String::new()];
    let closing = ["", "</details>"].map(str::to_owned);
    let lines = lines.into_iter().skip_while(String::is_empty);
    opening.into_iter().chain(lines).chain(closing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_give_way_until_a_page_fits_and_then_whole_sections() {
        let rows = |room: Room| vec![vec!["# FAULT".to_owned()], vec!["x".repeat(1000); room.rows]];
        let page = fitted(rows);
        assert_eq!(page.lines().count(), 1 + 40);
        let page = fitted(|_| vec![vec!["# FAULT".to_owned()], vec!["x".repeat(LIMIT)]]);
        assert_eq!(page, "# FAULT\n\n… (cut; all of it is in report.json)\n");
    }
}
