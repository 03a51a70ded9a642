//! Roads, airfields, ports and depots.

use super::super::canvas::{Colour, lit, mix};
use super::super::geometry::{Disc, Hull, Outline, Point, at, block, heading, slab};
use super::site::{DOWN, Dash, EDGE, RIGHT, Site, WHITE, YELLOW, asphalt, concrete, grass};

/// Two carriageways of four lanes and their shoulders on either side of a barrier, from left to right.
pub(super) fn freeway(site: &mut Site) {
    site.cover(grass);
    let noise = site.noise;
    site.canvas.blend(&slab(at(0.0, 0.0), RIGHT, EDGE, 104.0), 10.0, |point, _| {
        lit([150.0, 138.0, 114.0], 1.0 + 0.1 * noise.rough(point, 20.0))
    });
    site.canvas.fill(&slab(at(0.0, 0.0), RIGHT, EDGE, 92.0), |point| {
        let worn = noise.at(at(point.x * 0.06, point.y), 4.0);
        lit([152.0, 148.0, 140.0], 1.0 + 0.06 * worn + 0.05 * noise.rough(point, 60.0))
    });
    for side in [-1.0, 1.0] {
        carriageway(site, side);
    }
    let barrier = slab(at(0.0, 0.0), RIGHT, EDGE, 2.0);
    site.cast(barrier, 4.0);
    site.canvas.flat(&barrier, [196.0, 190.0, 178.0]);
    site.woods(22.0, (7.0, 12.0), |noise, point| point.y.abs() > 122.0 && noise.at(point, 90.0) > 0.0);
}

// The lanes and cars above (-1) or below (1) the barrier.
fn carriageway(site: &mut Site, side: f32) {
    let lane = |number: f32| side * (14.0 + number * 15.0);
    site.canvas.flat(&slab(at(0.0, lane(0.0)), RIGHT, EDGE, 0.8), YELLOW);
    site.canvas.flat(&slab(at(0.0, lane(4.0)), RIGHT, EDGE, 0.8), WHITE);
    for number in [1.0, 2.0, 3.0] {
        let line = Dash { length: 12.0, gap: 30.0, width: 1.4 };
        site.dashes(at(-EDGE, lane(number)), RIGHT, 2.0 * EDGE, line);
    }
    for number in [0.5, 1.5, 2.5, 3.5] {
        for slot in -5..5 {
            if site.dice.chance(0.35) {
                let x = slot as f32 * 66.0 + site.dice.between(0.0, 40.0);
                site.car(at(x, lane(number)), at(side, 0.0));
            }
        }
    }
}

/// A runway from left to right, with its threshold, number and aiming points.
pub(super) fn runway(site: &mut Site) {
    site.cover(grass);
    let noise = site.noise;
    site.canvas.fill(&slab(at(0.0, 0.0), RIGHT, EDGE, 108.0), |point| lit(asphalt(noise, point), 1.12));
    site.canvas.fill(&slab(at(0.0, 0.0), RIGHT, EDGE, 88.0), |point| {
        let rubber = (1.0 - point.y.abs() / 34.0).clamp(0.0, 1.0);
        let streaks = 0.6 + 0.4 * noise.at(at(point.x * 0.06, point.y), 5.0);
        lit(asphalt(noise, point), 0.92 - 0.34 * rubber * streaks)
    });
    for side in [-1.0, 1.0] {
        site.canvas.flat(&slab(at(0.0, side * 84.0), RIGHT, EDGE, 2.0), WHITE);
        for stripe in 0..6 {
            let y = side * (11.0 + stripe as f32 * 12.5);
            site.canvas.flat(&block(-190.0, y - 4.0, -80.0, y + 4.0), WHITE);
        }
        site.canvas.flat(&block(150.0, side * 38.0 - 12.0, 330.0, side * 38.0 + 12.0), WHITE);
    }
    let digits = site.dice.pick([(1, 8), (2, 7), (0, 9), (3, 4)]);
    digit(site, at(-40.0, -16.0), digits.0);
    digit(site, at(-40.0, 16.0), digits.1);
    site.dashes(at(10.0, 0.0), RIGHT, 380.0, Dash { length: 110.0, gap: 70.0, width: 4.0 });
}

// A digit 36 pixels tall, its top to the right: it is read by pilots who come from the left.
fn digit(site: &mut Site, centre: Point, value: usize) {
    // Seven segments: top, upper left, upper right, middle, lower left, lower right, bottom.
    const SEGMENTS: [u8; 10] = [0x77, 0x24, 0x5d, 0x6d, 0x2e, 0x6b, 0x7b, 0x25, 0x7f, 0x6f];
    let places = [
        (at(16.0, 0.0), DOWN),
        (at(8.0, -8.0), RIGHT),
        (at(8.0, 8.0), RIGHT),
        (at(0.0, 0.0), DOWN),
        (at(-8.0, -8.0), RIGHT),
        (at(-8.0, 8.0), RIGHT),
        (at(-16.0, 0.0), DOWN),
    ];
    for (bit, (place, axis)) in places.into_iter().enumerate() {
        if SEGMENTS[value] >> bit & 1 == 1 {
            site.canvas.flat(&slab(centre + place, axis, 9.5, 2.2), WHITE);
        }
    }
}

/// Piers with boat beside boat.
pub(super) fn harbor(site: &mut Site) {
    let water: Colour = site.dice.pick([[24.0, 58.0, 54.0], [26.0, 42.0, 46.0], [40.0, 58.0, 66.0]]);
    site.cover(|noise, point| lit(water, 1.0 + 0.12 * noise.rough(point, 24.0)));
    let noise = site.noise;
    for pier in -2..=2 {
        let x = pier as f32 * 196.0 + 40.0;
        let deck = slab(at(x, 0.0), DOWN, EDGE, 5.0);
        site.cast(deck, 4.0);
        site.canvas.fill(&deck, |point| lit([186.0, 172.0, 150.0], 1.0 + 0.1 * noise.at(point, 5.0)));
        for berth in -22..=22 {
            for side in [-1.0, 1.0] {
                let root = at(x + side * 4.0, berth as f32 * 17.5);
                if berth % 2 == 0 {
                    site.canvas.flat(&slab(root + at(side * 18.0, 8.75), RIGHT, 18.0, 1.2), [176.0, 164.0, 146.0]);
                }
                if site.dice.chance(0.9) {
                    boat(site, root + at(side * 2.0, 0.0), at(side, 0.0));
                }
            }
        }
    }
}

// A yacht with its stern at `stern`.
fn boat(site: &mut Site, stern: Point, axis: Point) {
    let (length, beam) = (site.dice.between(44.0, 68.0), site.dice.between(6.4, 7.8));
    let across = axis.across();
    let hull = Hull::new([
        stern - across * beam,
        stern + axis * (length * 0.6) - across * beam,
        stern + axis * (length * 0.85) - across * (beam * 0.6),
        stern + axis * length,
        stern + axis * (length * 0.85) + across * (beam * 0.6),
        stern + axis * (length * 0.6) + across * beam,
        stern + across * beam,
    ]);
    site.cast(hull, 5.0);
    site.canvas.flat(&hull, lit(WHITE, site.dice.between(0.86, 1.02)));
    let deck =
        site.dice.pick([[206.0, 200.0, 188.0], [70.0, 96.0, 146.0], [186.0, 178.0, 166.0], [214.0, 212.0, 206.0]]);
    site.canvas.flat(&slab(stern + axis * (length * 0.22), axis, length * 0.16, beam * 0.72), deck);
    let cabin = slab(stern + axis * (length * 0.55), axis, length * 0.14, beam * 0.62);
    site.cast(cabin, 2.5);
    site.canvas.flat(&cabin, [244.0, 244.0, 242.0]);
    site.canvas.flat(&slab(stern + axis * (length * 0.7), axis, 1.0, beam * 0.5), [110.0, 118.0, 126.0]);
}

/// Round tanks in rows, with service roads, pipes and walkways.
pub(super) fn storage_tanks(site: &mut Site) {
    site.cover(|noise, point| {
        let gravel = lit([158.0, 152.0, 138.0], 1.0 + 0.1 * noise.at(point, 3.0));
        mix(gravel, grass(noise, point), (0.5 + 2.0 * noise.at(point, 70.0)).clamp(0.0, 0.9))
    });
    let noise = site.noise;
    for row in -2..=2 {
        let y = row as f32 * 158.0;
        site.canvas.fill(&slab(at(0.0, y + 79.0), RIGHT, EDGE, 9.0), |point| concrete(noise, point));
        site.canvas.flat(&slab(at(0.0, y + 66.0), RIGHT, EDGE, 1.5), [150.0, 148.0, 144.0]);
        for column in -2..=2 {
            let place = at(column as f32 * 146.0 + site.dice.between(-5.0, 5.0), y + site.dice.between(-3.0, 3.0));
            let radius = site.dice.between(48.0, 60.0);
            site.canvas.fill(&Disc { centre: place, radius: radius + 7.0 }, |point| concrete(noise, point));
            tank(site, place, radius);
        }
    }
}

// A tank: its shadow, its wall, its roof with seams and spokes, and the walkway to its middle.
fn tank(site: &mut Site, centre: Point, radius: f32) {
    let (noise, shadow) = (site.noise, site.shadow);
    for step in 1..=6 {
        let fallen = Disc { centre: centre + shadow * (step as f32 * 4.0), radius };
        site.canvas.flat(&fallen, [74.0, 74.0, 76.0]);
    }
    let paint = site.dice.pick([[216.0, 216.0, 208.0], [200.0, 204.0, 202.0], [180.0, 184.0, 180.0]]);
    site.canvas.flat(&Disc { centre, radius }, lit(paint, 1.1));
    site.canvas.fill(&Disc { centre, radius: radius - 2.5 }, |point| {
        let slope = (point - centre).dot(shadow) / radius;
        lit(paint, 0.95 - 0.12 * slope + 0.08 * noise.rough(point, 20.0))
    });
    let seam = lit(paint, 0.78);
    for ring in [0.4, 0.95] {
        site.canvas.flat(&Outline { shape: Disc { centre, radius: radius * ring }, width: 1.4 }, seam);
    }
    for spoke in 0..8 {
        let axis = heading(spoke as f32 / 16.0);
        site.canvas.flat(&slab(centre, axis, radius * 0.95, 0.5), seam);
    }
    let walkway = slab(centre + shadow.across() * (radius * 0.5), shadow.across(), radius * 0.5, 2.0);
    site.cast(walkway, 3.0);
    site.canvas.flat(&walkway, [120.0, 118.0, 112.0]);
    site.canvas.flat(&Disc { centre, radius: 4.0 }, [110.0, 108.0, 104.0]);
}

/// An airliner on the apron, its nose to the right.
pub(super) fn airplane(site: &mut Site) {
    site.cover(|noise, point| {
        let joint = [point.x, point.y].map(|c| (c / 30.0 - (c / 30.0).floor()) * 30.0);
        let joint = if joint[0] < 1.0 || joint[1] < 1.0 { 0.9 } else { 1.0 };
        lit(concrete(noise, point), joint)
    });
    site.canvas.flat(&slab(at(0.0, 0.0), RIGHT, EDGE, 1.2), YELLOW);
    site.canvas.flat(&slab(at(-140.0, 0.0), DOWN, EDGE, 1.2), YELLOW);
    airliner(site);
    for place in [at(70.0, 40.0), at(46.0, -34.0), at(-30.0, 42.0), at(90.0, -60.0), at(-80.0, -66.0)] {
        let axis = site.dice.pick([RIGHT, DOWN]);
        site.car(place, axis);
    }
}

// A twin-engined airliner, 34 m long, over the origin.
fn airliner(site: &mut Site) {
    let livery = site.dice.pick([[228.0, 228.0, 226.0], [212.0, 214.0, 218.0], [60.0, 78.0, 140.0]]);
    let wings = [-1.0, 1.0].map(|side| {
        let wing = [at(14.0, 0.0), at(-30.0, side * 68.0), at(-38.0, side * 68.0), at(-18.0, 0.0)];
        let tail = [at(-52.0, 0.0), at(-66.0, side * 25.0), at(-72.0, side * 25.0), at(-66.0, 0.0)];
        [clockwise(wing), clockwise(tail), slab(at(3.0, side * 25.0), RIGHT, 9.0, 4.0)]
    });
    let wings = wings.as_flattened();
    let body = [
        slab(at(-4.0, 0.0), RIGHT, 58.0, 7.0),
        Hull::new([at(54.0, -7.0), at(68.0, -2.5), at(68.0, 2.5), at(54.0, 7.0)]),
        Hull::new([at(-72.0, -2.0), at(-62.0, -7.0), at(-62.0, 7.0), at(-72.0, 2.0)]),
    ];
    for part in wings.iter().chain(&body) {
        let fallen = part.moved(site.shadow * 14.0);
        site.canvas.flat(&fallen, [70.0, 68.0, 66.0]);
    }
    for part in wings {
        site.canvas.flat(part, [206.0, 208.0, 208.0]);
    }
    let slope = 0.03 * DOWN.dot(site.shadow);
    for part in &body {
        site.canvas.fill(part, |point| lit(livery, 1.05 - slope * point.y));
    }
    site.canvas.flat(&slab(at(-60.0, 0.0), RIGHT, 13.0, 1.2), [120.0, 60.0, 60.0]);
    site.canvas.flat(&slab(at(62.0, 0.0), RIGHT, 1.2, 4.0), [50.0, 56.0, 64.0]);
}

// A wing's corners run clockwise on one side of the aircraft and the other way round on the other.
fn clockwise(mut corners: [Point; 4]) -> Hull<4> {
    let (first, second) = (corners[1] - corners[0], corners[2] - corners[1]);
    if first.across().dot(second) < 0.0 {
        corners.reverse();
    }
    Hull::new(corners)
}
