"""What Tidegate costs and how fast it is, as ratios to a named rival or limit measured in the same run.

`python -m bench` runs all parts, `python -m bench flip --quick` one of them. Nothing here is a test: a time
is printed, never asserted, because machines differ; what must be zero is printed as a number too.

    rollouts  switches and canaries in a row under load
    flip      from the decision to everybody on the new release
    router    CPU per request, and throughput, against rivals
    kills     kill -9 of HAProxy and of the control plane
    store     commits per second
    loop      what a quiet control plane costs; simulated universes per second

    load      the requests, in a process of their own
    sockets   WebSockets that are held open
    plane     a control plane of the bench's own, with an app in it
    proxies   HAProxy as Tidegate configures it, and the rivals
    wrk       the faster load, where it is installed
    machine   processes, processors, ports
    figures   medians and percentiles
    report    tables, and docs/explanation/measurements.md

Everything runs on loopback, in temporary folders, bounded in count and time, stopped by process id.
"""
