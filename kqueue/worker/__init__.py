"""``kqueue worker``: a supervisor and the processes that run the jobs.

Theory of operation. The parent (:mod:`~kqueue.worker.supervisor`) imports the app, so that whatever is wrong with
it is said before anything runs, and starts its children as fresh processes: no fork, so no lock and no connection
comes along. A child (:mod:`~kqueue.worker.child`) imports the app too and runs ``run_jobs(wait=True)`` in so many
threads. Its leases are kept by a thread of the parent (:mod:`~kqueue.worker.renewal`), at the other end of a
socket; and two pipes join them (:mod:`~kqueue.worker.messages`):

    parent -> child   go stop now              the end of this pipe is the parent's death, and means stop
    child -> parent   ready failed pulse leaving done

A child claims nothing before it is told to go, so one that was not told may be killed at any time. What a dead
child had in hand is asked of the store, by how its lease owners end (:mod:`~kqueue.worker.orphans`): the parent
has waited for the process, so it is sure that nobody holds these jobs any more.
"""
