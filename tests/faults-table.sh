#!/usr/bin/env bash
# The table of faults that the tests have tried: tests/faults-table.sh print | write | check [ROWS]
#
# print  shows it; write  puts it into the README; check  compares the README's with this run's, but for the wording of
# the messages, which names versions and sizes of the host. ROWS are those of tests/it/faults/table.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${2:-${CARGO_TARGET_DIR:-target}/tmp/faults.tsv}
begin='<!-- faults: written by faults-table.sh -->'
end='<!-- end of faults -->'

# Area, fault, exit code, message, what is left: each fault once, sorted.
sorted() { LC_ALL=C sort -t $'\t' -k1,2 -u "$rows"; }

table() {
    sorted | awk -F '\t' '
        BEGIN {
            split("boot a guest that does not come up|console the guest'"'"'s console|crash crashes and reboots|files damaged and foreign files|guest inside the guest|host the host|image images|kill killed at every step|load many at once|mirror mirrors and downloads|moved moved and copied projects|paths paths of all kinds|ports ports|privacy keys, logs and shared directories|space full disks|verbs interruptions", areas, "|")
            for (i in areas) { word = areas[i]; sub(/ .*/, "", word); title[word] = substr(areas[i], length(word) + 2) }
        }
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
                printf "<details><summary>%s: %d of %d</summary>\n\n", (area in title ? title[area] : area), clean[area], count[area]
                printf "| fault | what is said first | exit code | left behind |\n|---|---|---|---|\n%s\n</details>\n", line[area]
            }
        }'
}

# What must not differ: which faults, their exit codes, what is left.
kept() { sed -n "/^$begin$/,/^$end$/p" | awk -F ' [|] ' '/^[|] / && NF >= 4 { print $1, $(NF - 1), $NF }' | LC_ALL=C sort; }

case ${1:-print} in
    print) sorted | awk -F '\t' '{ printf "%-9s %-55s %4s  %s  (left: %s)\n", $1, $2, $3, $4, $5 }
             END { printf "%d faults tried\n", NR }' ;;
    write)
        { sed "/^$begin$/q" README.md; table; sed -n "/^$end$/,\$p" README.md; } >README.md.new
        mv README.md.new README.md ;;
    check)
        if ! diff <(kept <README.md) <({ echo "$begin"; table; echo "$end"; } | kept); then
            echo "README's table of faults is not this run's: tests/faults-table.sh write" >&2
            exit 1
        fi ;;
esac
