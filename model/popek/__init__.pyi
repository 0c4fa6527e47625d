from .errors import PopekError as PopekError
from .kernel.instruction import OperandKind as OperandKind
from .kernel.machine import Machine as Machine
from .kernel.machine import Setting as Setting
from .kernel.outcome import Fault as Fault
from .kernel.outcome import Vector as Vector
from .kernel.state import Group as Group
from .kernel.state import Register as Register
from .kernel.state import Role as Role
from .kernel.state import State as State
from .kernel.state import bit as bit
from .kernel.state import group as group
from .kernel.state import memory as memory
from .kernel.state import register as register
from .kernel.state import word as word
from .kernel.technique import Technique as Technique
from .kernel.words import Word as Word
from .library.classes import classify as classify
from .library.classes import critical_when as critical_when
from .library.classes import explain as explain
from .library.classes import rewrite as rewrite
from .library.code import diagnose as diagnose
from .library.code import scan_file as scan_file
from .library.code import synthesize as synthesize
from .library.running import step as step
from .library.subjects import list_machines as list_machines
from .library.subjects import machine as machine
from .library.tables import rows as rows
from .library.theorems import check as check
from .library.theorems import problems as problems
from .library.theorems import prove as prove
from .library.theorems import safety as safety

STARTED_NS: int
__version__: str
