"""The architectures, one file per family. Importing this package registers them with timm and the zoo."""

from . import maxformer as maxformer
from . import ms_resnet as ms_resnet
from . import plif_net as plif_net
from . import qkformer as qkformer
from . import sdt as sdt
from . import sew_resnet as sew_resnet
from . import spikformer as spikformer
from . import sresnet as sresnet
from . import svgg as svgg
