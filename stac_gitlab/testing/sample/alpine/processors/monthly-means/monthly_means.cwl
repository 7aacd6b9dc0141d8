cwlVersion: v1.2
class: CommandLineTool
label: Monthly mean surface temperature per lake
baseCommand: [awk, -f]
inputs:
  script:
    type: File
    default:
      class: File
      location: monthly_means.awk
    inputBinding:
      position: 1
  table:
    type: File
    doc: CSV with the columns date, lake_id and surface_temperature_c
    inputBinding:
      position: 2
outputs:
  means:
    type: stdout
stdout: monthly_means.csv
