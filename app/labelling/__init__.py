"""What `velora label` is made of: finding recordings, reading them ahead, labelling, and keeping the books.

inputs      which recordings, and what each is called below the output folder
far_inputs  the same, of URLs
storage     files of this machine, and places in storage such as s3://bucket/folder
scratch     files of this machine that are needed for a while
settings    what labels depend on; can be handed to another process
reader      a worker process: decodes, synchronises, renders and resizes ahead
readers     the worker processes, as their owner sees them
engine      what the command needs of whoever labels
labeller    the engine of this process: owns the model; recordings in, notes of finished recordings out
inbox       recordings that wait for a labeller
clerks      do beside the model what takes a while on far storage
cluster     the engine that has many labellers on a Ray cluster, as the command sees it
ray_driver  the process that speaks with Ray; what becomes of recordings that are lost with a labeller
ray_labeller  a labeller on the cluster
outputs     the files of one recording
windows     the formats of a file of windows
notes       what is known of a finished recording, and whether it has to be done again
ledger      index.csv and run.json
shards      few Parquet files instead of many
lock        one run at a time on an output folder
far_lock    the same, in far storage
progress    a bar for people, lines for programs
"""
