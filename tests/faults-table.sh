#!/usr/bin/env bash
# The table of faults that the tests have tried: tests/faults-table.sh print | write | check [ROWS]
#
# print  shows it; write  puts it into the README; check  fails when the README lacks a fault of this run, and tells which
# of its faults this host could not try. ROWS are those of tests/it/faults/table.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${2:-${CARGO_TARGET_DIR:-target}/tmp/faults.tsv}
begin='<!-- faults: written by faults-table.sh -->'
end='<!-- end of faults -->'

# Area, fault, exit code, message, what is left: each fault once, sorted.
sorted() { LC_ALL=C sort -t $'\t' -k1,2 -u "$rows"; }

# Area and what it is about: the first words of the tests' own comments.
titles() {
    for file in tests/it/faults/*.rs; do
        printf '%s\t' "$(basename "$file" .rs)"
        sed -n 's#^//! ##p' "$file" | tr '\n' ' ' | sed 's/[.:;] .*//'
        echo
    done
}

table() {
    titles | awk -F '\t' '
        NR == FNR { title[$1] = $2; next }
        function cell(text) { gsub(/\|/, "\\|", text); gsub(/</, "\\&lt;", text); return text }
        {
            if (!($1 in count)) order[++areas_seen] = $1
            count[$1]++; all++
            if ($5 == "nothing") { clean[$1]++; all_clean++ }
            line[$1] = line[$1] sprintf("| %s | %s | %s | %s |\n", cell($2), cell($4), $3, cell($5))
        }
        END {
            printf "%d faults tried, %d survived: nothing lost, nothing left running.\n\n", all, all_clean
            for (i = 1; i <= areas_seen; i++) {
                area = order[i]
                printf "<details><summary>%s: %d of %d</summary>\n\n", title[area], clean[area], count[area]
                printf "| fault | what is said first | exit code | left behind |\n|---|---|---|---|\n%s\n</details>\n", line[area]
            }
        }' - <(sorted)
}

# The faults of a table, by name.
names() { sed -n "/^$begin$/,/^$end$/p" | awk -F ' [|] ' '/^[|] / && NF >= 4 && $1 != "| fault" { print $1 }' | LC_ALL=C sort -u; }

case ${1:-print} in
    print) sorted | awk -F '\t' '{ printf "%-9s %-55s %4s  %s  (left: %s)\n", $1, $2, $3, $4, $5 }
             END { printf "%d faults tried\n", NR }' ;;
    write)
        { sed "/^$begin$/q" README.md; table; sed -n "/^$end$/,\$p" README.md; } >README.md.new
        mv README.md.new README.md ;;
    check)
        readme=$(names <README.md)
        run=$({ echo "$begin"; table; echo "$end"; } | names)
        comm -23 <(echo "$readme") <(echo "$run") | sed 's/^|/not tried on this host:/'
        new=$(comm -13 <(echo "$readme") <(echo "$run"))
        [ -z "$new" ] || {
            printf '%s\nThe README does not have these: tests/faults-table.sh write\n' "$new" >&2
            exit 1
        } ;;
esac
