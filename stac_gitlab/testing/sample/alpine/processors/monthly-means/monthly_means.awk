# Monthly mean surface temperature per lake, from a CSV of single observations.

BEGIN { FS = OFS = "," }

NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    print "lake_id", "month", "observations", "mean_surface_temperature_c"
    next
}

{
    key = $column["lake_id"] OFS substr($column["date"], 1, 7)
    if (!(key in count)) order[++groups] = key
    count[key]++
    sum[key] += $column["surface_temperature_c"]
}

END {
    for (i = 1; i <= groups; i++) {
        key = order[i]
        print key, count[key], sprintf("%.2f", sum[key] / count[key])
    }
}
