"""All roles of a store."""

from kqueue.testing.contracts.added_once import *
from kqueue.testing.contracts.admission import *
from kqueue.testing.contracts.dispatching import *
from kqueue.testing.contracts.intake import *
from kqueue.testing.contracts.keeping import *
from kqueue.testing.contracts.limits import *
from kqueue.testing.contracts.lookup import *
from kqueue.testing.contracts.operator import *
from kqueue.testing.contracts.overtaking import *
from kqueue.testing.contracts.repair import *
from kqueue.testing.contracts.runs import *
from kqueue.testing.contracts.session import *
from kqueue.testing.contracts.settlements import *
from kqueue.testing.contracts.times import *
from kqueue.testing.contracts.workers import *
