"""Everything that needs a key: what the control plane signs, seals, and proves before it runs anything.

keys         the files that hold keys, and whom we trust
statements   what is signed: provenance, passes, admissions
secrets      values sealed to one environment
redaction    values that must not be shown
admitting    what must be proved before an instance starts
releases     a release's provenance: made, proved, handed from one control plane to another
"""
