"""Administration of studies: status, repair, deletion, copies, garbage collection, checks.

In: `Stores`, and the name of a study. Out: what the commands `status`, `studies`, `doctor`, `delete-study`,
`copy-study` and `gc` print; what killed workers left is repaired on the way (`repair_leftovers`). Called by: `cli`,
`analysis`.
"""
