"""How fast the judge stops a bad canary, how rarely it stops a good one, beside rivals and the limit.

`python -m bench.canary` simulates everything (about a quarter of an hour on two processors), `--quick` a
sample of it in under a minute. Traffic is simulated, the judge is real; only in the long runs that look at
nothing but errors a written-out copy (`fast`) stands in for it, which a test holds to the same numbers.

    streams   requests and errors per second: regressions, ramps, outages, bursts, incidents
    fast      the judge's process on errors alone, without its values
    rivals    the rules of Flagger, Argo Rollouts and Kayenta by their documented settings, and the bound
    latency   streams with latencies, through the real judge
    trials    each line of the acceptance list
"""
