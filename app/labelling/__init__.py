"""What `velora label` is made of: finding recordings, reading them ahead, labelling, and keeping the books.

inputs      which recordings, and what each is called below the output folder
settings    what labels depend on; can be handed to another process
reader      a worker process: decodes, synchronises, renders and resizes ahead
readers     the worker processes, as their owner sees them
labeller    owns the model; recordings in, notes of finished recordings out
outputs     the files of one recording
windows     the formats of a file of windows
notes       what is known of a finished recording, and whether it has to be done again
ledger      index.csv and run.json
shards      few Parquet files instead of many
lock        one run at a time on an output folder
progress    a bar for people, lines for programs
"""
