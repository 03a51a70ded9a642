"""The words that the text tower is trained on.

Promises: one `Concept` a folder class of the two training sets, each with the wordings that name it; the templates
those wordings are put into; which concepts are too near to be called wrong for each other (`KIN`); and a few wordings
that are *never* trained on (`HELD_OUT`), by which training is judged on words it was not shown.

A wording that stands under two concepts ("forest") is right for both. A caption class of RSICD/RSITMD that means the
same scene lends its captions too (`CAPTION_CLASSES`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """A folder class. `name` is what the figures are measured with; `folder` is the raw directory name."""

    dataset: str
    folder: str
    name: str
    wordings: tuple[str, ...]

    @property
    def all_wordings(self) -> tuple[str, ...]:
        return (self.name, self.folder.lower(), *self.wordings)


def _concept(dataset: str, folder: str, name: str, wordings: str) -> Concept:
    return Concept(dataset, folder, name, tuple(w.strip() for w in wordings.split(";") if w.strip()))


UCM = tuple(
    _concept("ucm", *row)
    for row in (
        ("agricultural", "agricultural land",
         "farmland; farm land; a farm; farms; cropland; crops; a crop field; crop fields; a field of crops; rows of crops; "
         "an agricultural field; agricultural fields; agriculture; a ploughed field; ploughed fields; a plowed field; "
         "a cultivated field; arable land; a planted field; a field with furrows; tilled soil; fields; farm fields; "
         "a wheat field; a corn field; a piece of farmland; plantation rows; green crops growing in rows; "
         "a striped field; an agricultural area; a rural field; furrows in the soil"),
        ("airplane", "airplane",
         "an airplane; airplanes; a plane; planes; a parked plane; planes parked at the airport; an aircraft; aircraft; "
         "an aeroplane; aeroplanes; a jet; jets; an airliner; a passenger plane; a plane on the tarmac; a plane on the ground; "
         "aircraft on the apron; an airplane stopped at the airport; a plane at the gate; airport apron with planes; "
         "a small plane; a white plane; a fighter jet; planes at a terminal; an airport; grounded aircraft"),
        ("baseballdiamond", "baseball diamond",
         "a baseball diamond; baseball diamonds; a baseball field; baseball fields; a baseball pitch; a ball field; "
         "a ballpark; a softball field; a baseball ground; a baseball infield; a sports field for baseball; "
         "a place to play baseball; baseball; a diamond of sand and grass; a baseball court; ball fields; a sports ground"),
        ("beach", "beach",
         "a beach; beaches; a sandy beach; a sand beach; the seaside; a coast; a coastline; a shore; the shore; a shoreline; "
         "a sandy shore; waves on a beach; waves breaking on sand; surf; sand and sea; the seashore; sea and sand; "
         "a strip of sand by the water; an ocean beach; white sand and blue water; waves and sand; where the sea meets the land"),
        ("buildings", "buildings",
         "a building; large buildings; big buildings; many buildings; office buildings; an office building; commercial buildings; "
         "a commercial area; a business district; a downtown area; a city centre; tall buildings; high-rise buildings; city blocks; "
         "apartment buildings; apartment blocks; skyscrapers; buildings with flat roofs; urban buildings; "
         "an urban area with buildings; a built-up area; a block of buildings; city buildings; rooftops of large buildings; a city"),
        ("chaparral", "chaparral",
         "shrubland; scrubland; scrub; shrubs; bushes; bush land; dry bushes; scattered bushes; scattered shrubs; "
         "a dry landscape with bushes; desert scrub; sparse vegetation; bushes on bare ground; wild bushes; brush; "
         "low shrubs on sandy ground; dry land with shrubs; wilderness with shrubs; arid land with bushes; heathland; "
         "plants scattered on the ground; semi-desert with plants"),
        ("denseresidential", "dense residential area",
         "dense residential; a dense residential area; dense housing; densely packed houses; houses packed together; "
         "houses pressed together; crowded houses; a crowded neighbourhood; a dense neighborhood; high density housing; "
         "many houses side by side; many houses very near each other; rows of houses packed tightly; a densely built residential area; "
         "a dense suburb; tightly packed homes; a town with dense houses; densely populated housing; closely spaced houses; "
         "crowded homes; lots of houses with little space between; dense houses"),
        ("forest", "forest",
         "a forest; forests; the woods; woodland; a wood; trees; many trees; dense trees; a dense forest; a tree canopy; "
         "tree cover; a jungle; a green forest; forested land; a wooded area; dark green trees; pine trees; treetops; "
         "a forest from above; thick forest; a stand of trees; lots of trees; forest canopy; trees everywhere; rainforest"),
        ("freeway", "freeway",
         "a freeway; freeways; a highway; highways; a motorway; motorways; an expressway; a multi-lane road; a main road; "
         "a wide road with cars; a dual carriageway; an interstate; a big road with lanes; cars driving on the highway; "
         "traffic on the freeway; a straight highway; lanes of traffic; a carriageway; a road with many lanes; two parallel freeways; "
         "a major road; cars on a motorway; highway traffic"),
        ("golfcourse", "golf course",
         "a golf course; golf courses; a golf green; a golf fairway; golf; a putting green; fairways and bunkers; "
         "sand bunkers on grass; a golf links; a golf club; a place to play golf; a fairway; bunkers and lawns; "
         "lawns with sand traps; a golf field; sand traps; turf with bunkers"),
        ("harbor", "harbor",
         "a harbor; harbors; a harbour; harbours; a marina; marinas; boats; a boat; many boats; docked boats; boats at a dock; "
         "boats in a harbour; a port; ports; ships in port; a dock; docks; moored boats; yachts; yachts at a pier; a pier; a jetty; "
         "sailing boats; boats at their moorings; a yacht marina; boats lined up on the water; a wharf; a quay; ships; "
         "boats moored side by side; a boat harbor; vessels; a fishing port"),
        ("intersection", "intersection",
         "an intersection; intersections; a road intersection; a crossroads; crossroads; a street crossing; a road junction; "
         "a junction; junctions; a crossing of two roads; roads crossing; where two roads meet; a traffic junction; "
         "a street intersection; streets crossing each other; a road crossing; a crossing; a four-way junction; "
         "an intersection with cars; a street corner; a junction with traffic lights"),
        ("mediumresidential", "medium residential area",
         "medium residential; a medium residential area; a suburban neighbourhood; a suburban neighborhood; suburbs; a suburb; "
         "suburban houses; suburban homes; houses with gardens; houses with yards; houses with trees between them; "
         "a residential area with trees; a medium density residential area; medium density housing; family houses; detached houses; "
         "houses along a street; houses on a quiet street; a housing estate; a residential street; a neighborhood with houses and trees; "
         "moderately spaced houses"),
        ("mobilehomepark", "mobile home park",
         "a mobile home park; mobile homes; a mobile home; a trailer park; trailer parks; trailers; trailer homes; a caravan park; "
         "caravans; caravan site; manufactured homes; a park of mobile homes; rows of mobile homes; rows of trailers; "
         "rows of caravans; a mobile home community; prefabricated homes in rows; static caravans; motor homes"),
        ("overpass", "overpass",
         "an overpass; overpasses; a flyover; flyovers; a viaduct; a road bridge; a bridge over a road; a road over another road; "
         "a highway overpass; an elevated road; an interchange; a highway interchange; a bridge over the highway; a road bridge over a motorway; "
         "roads crossing at different levels; one road passing over another; a grade-separated crossing; a motorway bridge; "
         "a highway bridge; a raised road; a freeway interchange; a road going over a freeway"),
        ("parkinglot", "parking lot",
         "a parking lot; parking lots; a car park; car parks; parked cars; cars; many cars; cars in rows; rows of parked cars; "
         "a parking area; parking spaces; a parking space; a lot full of cars; vehicles parked in rows; parked vehicles; "
         "cars parked side by side; a crowded parking lot; a full parking lot; cars parked in lines; many parked cars; parking; "
         "vehicles; a place full of cars; automobiles; lots of cars"),
        ("river", "river",
         "a river; rivers; a stream; a winding river; a river through the trees; a waterway; flowing water; a river bank; river banks; "
         "a river with trees on both sides; a creek; a river bend; a curved river; a wide river; a brook; water flowing through land; "
         "a river in a valley; a watercourse; a canal"),
        ("runway", "runway",
         "a runway; runways; an airport runway; an airstrip; a landing strip; airstrips; a landing runway; a runway with markings; "
         "a strip for planes to land; a runway with white lines; a taxiway; an airfield; an airfield runway; a runway without planes; "
         "tarmac with markings; a straight runway; a long paved landing strip; a take-off strip; runway markings"),
        ("sparseresidential", "sparse residential area",
         "sparse residential; a sparse residential area; a single house; a lone house; a house among trees; a villa; villas; "
         "scattered houses; a few houses; an isolated house; a house in the countryside; low density housing; a rural house; "
         "a house surrounded by trees; a country house; a big house with a garden; one house with land around it; a farmhouse; "
         "a house with a large yard; sparsely built housing; a solitary house; a mansion; houses far apart; a cottage"),
        ("storagetanks", "storage tanks",
         "storage tanks; a storage tank; oil tanks; an oil tank; fuel tanks; a fuel tank; round tanks; white round tanks; "
         "a tank farm; an oil depot; a fuel depot; petroleum tanks; a water tank; industrial tanks; cylindrical tanks; "
         "circular tanks; gas tanks; tanks; an oil storage site; a refinery with tanks; a big round tank; oil storage tanks"),
        ("tenniscourt", "tennis court",
         "a tennis court; tennis courts; tennis; two tennis courts; a court for tennis; a place to play tennis; outdoor tennis courts; "
         "several tennis courts; sports courts; a sports court; a green tennis court; courts with nets; a blue tennis court; "
         "tennis courts side by side; a hard court"),
    )
)

EUROSAT = tuple(
    _concept("eurosat", *row)
    for row in (
        ("AnnualCrop", "annual crop land",
         "annual crop; annual crops; farmland; cropland; crop fields; agricultural fields; arable land; ploughed fields; fields; "
         "farm fields; agricultural land; a patchwork of fields; fields of grain; cultivated land; tilled fields; bare fields"),
        ("Forest", "forest",
         "a forest; forests; the woods; woodland; trees; dense trees; a dense forest; a tree canopy; forested land; "
         "a wooded area; a green forest; dark green forest; thick forest; conifer forest; a forest from above; forest canopy"),
        ("HerbaceousVegetation", "herbaceous vegetation",
         "herbaceous vegetation land; wild grassland; natural grassland; rough grassland; grass and shrubs; low vegetation; "
         "wild vegetation; moorland; steppe; hillside vegetation; herbs and grasses; open land with plants; uncultivated land"),
        ("Highway", "a highway or road",
         "a highway; highways; a road; roads; a motorway; motorways; an expressway; a main road; a road through the countryside; "
         "a road through fields; a long road; a highway through land; a country road; highway or road"),
        ("Industrial", "industrial buildings",
         "an industrial area; industry; an industrial building; a factory; factories; warehouses; a warehouse; an industrial estate; "
         "an industrial zone; an industrial site; large industrial roofs; a logistics centre; a business park; commercial buildings; "
         "a manufacturing plant; depots; workshops"),
        ("Pasture", "pasture land",
         "pasture; pastures; a pasture; a meadow; meadows; grassland; grazing land; a grass field; green grass; a green field; "
         "grass; grassy land; a lawn; green meadows; a grazing field; hay meadow; a grassy meadow"),
        ("PermanentCrop", "permanent crop land",
         "permanent crop; permanent crops; an orchard; orchards; a vineyard; vineyards; fruit trees in rows; olive groves; "
         "an olive grove; rows of vines; a plantation; plantations; a fruit plantation; cultivated trees"),
        ("Residential", "residential buildings",
         "a residential area; residential areas; houses; a town; a village; a neighbourhood; a neighborhood; homes; housing; "
         "a residential district; a suburb; suburbs; a settlement; many houses; a built-up residential area; streets of houses; a small town"),
        ("River", "a river",
         "river; rivers; a stream; a winding river; a waterway; a river bank; a canal; flowing water; a wide river; a river bend; "
         "a river through fields; a river through land; a river valley"),
        ("SeaLake", "a sea or lake",
         "the sea; a sea; a lake; lakes; an ocean; the ocean; open water; water; a body of water; blue water; deep water; "
         "a reservoir; a pond; a large lake; calm water; a water surface; the surface of the sea; a lagoon; sea or lake; still water"),
    )
)

CONCEPTS = UCM + EUROSAT

# Wordings that one kin would say of the other's pictures: neither right nor wrong, so left out of the other's softmax.
# Only across the two data sets: within one, the labels are exclusive and stay so.
KIN = (
    {"agricultural", "AnnualCrop", "PermanentCrop", "Pasture", "HerbaceousVegetation"},
    {"golfcourse", "Pasture", "HerbaceousVegetation"},
    {"chaparral", "HerbaceousVegetation"},
    {"forest", "Forest"},
    {"river", "River"},
    {"river", "SeaLake"},
    {"beach", "SeaLake"},
    {"harbor", "SeaLake"},
    {"freeway", "overpass", "intersection", "Highway"},
    {"denseresidential", "mediumresidential", "sparseresidential", "mobilehomepark", "buildings", "Residential"},
    {"buildings", "storagetanks", "Industrial"},
    {"buildings", "Residential", "Industrial"},
)

# The first half of the list is what people write; the rest is what benchmarks write.
TEMPLATES = (
    "{}", "{} seen from above", "an aerial photo of {}", "a drone photo of {}", "a photo of {} from the air",
    "there is {}", "this is {}", "{} from a drone", "an aerial view of {}", "a picture of {}", "a view of {} from above",
    "a satellite photo of {}.", "a satellite image of {}.", "an overhead image of {}.", "an aerial image of {}.",
    "a remote sensing image of {}.", "a bird's eye view of {}.", "a top-down photo of {}.", "a photo of {}.",
    "satellite imagery of {}.", "aerial imagery of {}.", "a centered satellite photo of {}.", "a photo taken by a drone of {}.",
    "an overhead view of {}.", "a blurry satellite photo of {}.", "a low resolution satellite photo of {}.",
    "a good aerial photo of {}.", "a satellite view of {}.", "a photo of {}, seen from an aircraft.", "a land use photo of {}.",
)
EVALUATION_TEMPLATE = "a satellite photo of {}."

# RSICD and RSITMD name their pictures by class; these mean the scene of the concept on the right.
CAPTION_CLASSES = {
    "denseresidential": "denseresidential", "mediumresidential": "mediumresidential", "sparseresidential": "sparseresidential",
    "river": "river", "beach": "beach", "forest": "forest", "farmland": "agricultural", "baseballfield": "baseballdiamond",
    "storagetanks": "storagetanks", "parking": "parkinglot", "port": "harbor", "boat": "harbor", "viaduct": "overpass",
    "plane": "airplane", "intersection": "intersection", "industrial": "Industrial", "meadow": "Pasture",
}

# Never trained on, checked by a test. What a drone operator might type.
HELD_OUT = {
    "agricultural": ("a field with crops in rows", "freshly ploughed farmland"),
    "airplane": ("a parked aircraft", "a passenger jet on the apron"),
    "baseballdiamond": ("a field where people play baseball", "a small baseball ground"),
    "beach": ("waves rolling onto sand", "a sandy coast"),
    "buildings": ("big office blocks", "large flat roofs in the city"),
    "chaparral": ("scattered dry shrubs", "bushes on dry soil"),
    "denseresidential": ("houses close together", "a very dense housing area"),
    "forest": ("woods", "an area covered by trees"),
    "freeway": ("motorway", "a highway with cars on it"),
    "golfcourse": ("a fairway with bunkers", "grass and sand bunkers for golf"),
    "harbor": ("boats in a marina", "yachts moored at the docks"),
    "intersection": ("two streets meeting", "a crossing of streets with cars"),
    "mediumresidential": ("a suburb with gardens", "suburban homes with trees"),
    "mobilehomepark": ("trailers in rows", "a caravan camp"),
    "overpass": ("a bridge where one road crosses another", "highway flyover"),
    "parkinglot": ("cars parked in a lot", "a car park full of vehicles"),
    "river": ("a river winding between trees", "a stream with green banks"),
    "runway": ("a landing strip for planes", "an airport runway with white markings"),
    "sparseresidential": ("one house alone among trees", "an isolated villa"),
    "storagetanks": ("big white oil tanks", "round fuel storage tanks"),
    "tenniscourt": ("courts for playing tennis", "a pair of tennis courts"),
}


def shares_kin(a: str, b: str) -> bool:
    """Whether two folder classes may be mistaken for each other by a fair judge."""
    return any(a in group and b in group for group in KIN)
